// swift-tools-version: 6.2
import PackageDescription

// One list for every target: Swift 6 mode, and functions that stay on their
// caller's executor unless they say otherwise (SE-0461).
let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let crypto: Target.Dependency = .product(name: "Crypto", package: "swift-crypto")
let cryptoExtras: Target.Dependency = .product(name: "CryptoExtras", package: "swift-crypto")

func debian(_ package: String) -> [SystemPackageProvider] { [.apt([package])] }

// The layers (docs/architecture.md); scripts/check-layers holds the imports to them.
let package = Package(
    name: "bgbackup",
    products: [
        .executable(name: "bgbackup", targets: ["bgbackup"]),
        .library(name: "BackupRepository", targets: ["BackupRepository", "ObjectStorage", "BackupBase"]),
        .library(name: "BackupEngine", targets: ["BackupEngine", "QdrantStorage", "VolumeIO"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", exact: "4.5.2"),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/apple/swift-system", exact: "1.8.1"),
        .package(url: "https://github.com/swiftlang/swift-subprocess", exact: "1.0.2"),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
    ],
    targets: [
        .systemLibrary(name: "CZstd", pkgConfig: "libzstd", providers: debian("libzstd-dev")),
        .systemLibrary(name: "CArchive", pkgConfig: "libarchive", providers: debian("libarchive-dev")),
        .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: debian("libcurl4-openssl-dev")),
        .systemLibrary(name: "CExpat", pkgConfig: "expat", providers: debian("libexpat1-dev")),
        .systemLibrary(name: "CLinux"),

        .target(name: "BackupBase", dependencies: ["CLinux"], swiftSettings: settings),
        .target(
            name: "ObjectStorage", dependencies: ["BackupBase", "CLinux", "CCurl", "CExpat", crypto],
            swiftSettings: settings),
        .target(
            name: "VolumeIO",
            dependencies: [
                "BackupBase", "CLinux", "CArchive", .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),
        .target(name: "QdrantStorage", dependencies: ["BackupBase", "CCurl"], swiftSettings: settings),
        .target(
            name: "BackupRepository",
            dependencies: ["BackupBase", "ObjectStorage", "CZstd", "CLinux", crypto, cryptoExtras],
            swiftSettings: settings),
        .target(
            name: "BackupEngine",
            dependencies: [
                "BackupBase", "ObjectStorage", "VolumeIO", "QdrantStorage", "BackupRepository", crypto,
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings),
        .target(
            name: "Operations",
            dependencies: [
                "BackupBase", "ObjectStorage", "BackupEngine", .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "SystemPackage", package: "swift-system"), .product(name: "Yams", package: "Yams"),
            ],
            swiftSettings: settings),
        .executableTarget(
            name: "bgbackup",
            dependencies: [
                "BackupBase", "ObjectStorage", "VolumeIO", "QdrantStorage", "BackupRepository", "BackupEngine", "Operations",
                "CLinux",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "Subprocess", package: "swift-subprocess"),
                .product(name: "SystemPackage", package: "swift-system"),
            ],
            swiftSettings: settings),

        .target(
            name: "TestSupport", dependencies: ["BackupBase"], path: "Tests/TestSupport", swiftSettings: settings),
        .testTarget(
            name: "VolumeIOTests", dependencies: ["VolumeIO", "BackupBase", "CLinux", "CArchive", "CCurl"],
            swiftSettings: settings),
        .testTarget(
            name: "ObjectStorageTests",
            dependencies: ["ObjectStorage", "BackupBase", "TestSupport", "CExpat", crypto],
            swiftSettings: settings),
        .testTarget(
            name: "BackupRepositoryTests",
            dependencies: ["BackupRepository", "ObjectStorage", "BackupBase", "TestSupport", "QdrantStorage", crypto],
            swiftSettings: settings),
        .testTarget(
            name: "QdrantStorageTests", dependencies: ["QdrantStorage", "BackupBase"], swiftSettings: settings),
        .testTarget(
            name: "BackupEngineTests",
            dependencies: ["BackupEngine", "BackupRepository", "ObjectStorage", "BackupBase", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "OperationsTests", dependencies: ["Operations", "ObjectStorage", "BackupEngine", "BackupBase", "TestSupport"],
            swiftSettings: settings),
        .testTarget(
            name: "EndToEndTests", dependencies: ["TestSupport", "BackupBase", "QdrantStorage", "Operations", "bgbackup"],
            exclude: ["Golden"],
            swiftSettings: settings),
        .testTarget(
            name: "FaultTests",
            dependencies: ["TestSupport", "BackupBase", "BackupEngine", "BackupRepository", "ObjectStorage", "bgbackup"],
            swiftSettings: settings),
    ]
)
