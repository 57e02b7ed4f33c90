// swift-tools-version: 6.2
import PackageDescription

// A package of its own: it reaches into the repository's format, which the product's build does not open up.
let package = Package(
    name: "Scale",
    dependencies: [.package(name: "bgbackup", path: "../..")],
    targets: [
        .executableTarget(
            name: "ScaleRepository", dependencies: [.product(name: "BackupRepository", package: "bgbackup")],
            swiftSettings: [
                .swiftLanguageMode(.v6), .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
                .enableUpcomingFeature("MemberImportVisibility"),
            ])
    ]
)
