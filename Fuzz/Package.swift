// swift-tools-version: 6.2
import PackageDescription

// A package of its own: a fuzz target has no main of its own and would break a
// plain `swift build` of the product.
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6), .unsafeFlags(["-parse-as-library"]),
]

let package = Package(
    name: "Fuzz",
    dependencies: [.package(name: "bgbackup", path: "..")],
    targets: ["FuzzObjects", "FuzzManifest", "FuzzStore"].map {
        .executableTarget(
            name: $0, dependencies: [.product(name: "BackupRepository", package: "bgbackup")], swiftSettings: settings)
    }
        + ["FuzzVolume", "FuzzArchive"].map {
            .executableTarget(
                name: $0, dependencies: [.product(name: "BackupEngine", package: "bgbackup")], swiftSettings: settings)
        }
)
