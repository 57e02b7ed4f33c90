// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that the backup program never depends on a web server.
let package = Package(
    name: "StrictS3",
    platforms: [.macOS(.v15)],
    products: [.executable(name: "strict-s3", targets: ["strict-s3"])],
    dependencies: [
        .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1"),
        .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
    ],
    targets: [
        .executableTarget(
            name: "strict-s3",
            dependencies: [
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "Crypto", package: "swift-crypto"),
            ],
            swiftSettings: [.swiftLanguageMode(.v6)])
    ]
)
