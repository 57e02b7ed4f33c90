import Foundation
import TestSupport
import Testing

@Suite(
    "Snapshot files of Qdrant", .enabled(if: Fixture.engineIsAvailable, "qdrant-edge-py cannot be installed"))
struct QdrantArchiveTests {
    let workspace: Workspace
    let volume: Volume

    init() throws {
        workspace = try Workspace.ready("qdrant-archive")
        volume = try Volume(workspace.path("volume"))
        try Program.run("/bin/rmdir", [volume.path])
        try Fixture.run("create", volume.path, "--points", "600", "--dim", "32")
        try volume.shell("find . -name temp_segments -prune -exec rm -r {} +; find . -name '.atomicwrite*' -exec rm -r {} +")
        try workspace.backup(volume)
    }

    private func fingerprint(_ path: String) throws -> [String: Any] {
        let text = try Fixture.run("fingerprint", path).output
        return try #require((try JSONSerialization.jsonObject(with: Data(text.utf8))) as? [String: Any])
    }

    private func points(_ path: String) throws -> [String: Int] {
        let collections = try #require(try fingerprint(path)["collections"] as? [String: [String: Any]])
        return collections.mapValues { $0["points"] as? Int ?? -1 }
    }

    @Test func `The engine unpacks and opens an exported shard`() throws {
        for (collection, count) in try points(volume.path) {
            let file = workspace.path("\(collection).snapshot")
            try workspace.expect(
                0, ["export", "latest", "--format", "qdrant-shard", "--collection", collection, "--shard", "0", "-o", file])
            let script = workspace.path("open.py")
            try Data(
                """
                import json, sys
                sys.path.insert(0, "\(Program.root)scripts")
                from qdrant_fixture import environment
                environment.enter()
                import qdrant_edge as edge
                from qdrant_fixture import engine
                edge.EdgeShard.unpack_snapshot(sys.argv[1], sys.argv[2])
                shard = edge.EdgeShard.load(sys.argv[2], engine.edge_config(json.load(open(sys.argv[3]))))
                print(shard.count(edge.CountRequest(exact=True)))
                """.utf8
            ).write(to: URL(filePath: script))
            let opened = try Program.tool(
                "python3", [script, file, workspace.path("shard-\(collection)"), volume("collections/\(collection)/config.json")])
            #expect(opened.output == "\(count)\n", "\(opened.errors)")
        }
    }

    @Test func `A collection goes out and comes in as it was`() throws {
        let file = workspace.path("documents-8123456789-2026-11-27-08-00-00.snapshot")
        try workspace.expect(
            0, ["export", "latest", "--format", "qdrant-collection", "--collection", "documents", "-o", file])
        let names = Set(try Program.tool("tar", ["-tf", file]).output.split(separator: "\n").map(String.init))
        for name in [
            "version.info", "config.json", "shard_key_mapping.json", "payload_index.json", "0/replica_state.json",
            "0/shard_config.json", "0/newest_clocks.json", "0/applied_seq.json", "0/wal/first-index",
        ] where volume.exists("collections/documents/\(name)") {
            #expect(names.contains(name))
        }
        let segments = names.filter { $0.hasPrefix("0/segments/") }
        #expect(!segments.isEmpty && segments.allSatisfy { $0.hasSuffix(".tar") })
        let inner = try Program.run("/bin/sh", ["-c", "tar -xOf \(file) \(segments.first!) | tar -tf -"]).output
        #expect(inner.contains("snapshot/files/segment.json\n") && inner.contains("snapshot/files/version.info\n"))

        let taken = try workspace.expect(0, ["import", file, "--node", "n", "--single-node", "--json"]).summary
        #expect((taken["bytes_new"] as? NSNumber)?.int64Value ?? .max < 16 << 10)
        try workspace.restore("latest@n")
        let restored = try Volume(workspace.path("restored"))
        try restored.shell("test \"$(ls)\" = collections; test \"$(ls collections)\" = documents")
        let state = try String(decoding: restored.read("collections/documents/0/replica_state.json"), as: UTF8.self)
        #expect(state.components(separatedBy: "Active").count == 2, "\(state)")
        try Program.tool(
            "cp",
            ["-a", volume("collections/documents/0/replica_state.json"), restored("collections/documents/0/replica_state.json")])
        // Qdrant's archives of segments have no directories: empty ones do not come along.
        for tree in [volume.path, restored.path] { try Volume(existing: tree).shell("find . -type d -empty -delete") }
        try expectIdentical(
            volume("collections/documents"), restored("collections/documents"),
            omitting: ["mtime_ns", "segments", "mode", "xattrs"])
        #expect(try points(restored.path)["documents"] == points(volume.path)["documents"])
    }

    @Test func `A full storage's snapshot becomes a volume, aliases too`() throws {
        let folder = try Volume(workspace.path("full"))
        let collections = try points(volume.path).keys.sorted()
        for collection in collections {
            try workspace.expect(
                0,
                [
                    "export", "latest", "--format", "qdrant-collection", "--collection", collection, "-o",
                    folder("\(collection)-1-2026-11-27-08-00-00.snapshot"),
                ])
        }
        let mapping = collections.map { "\"\($0)\":\"\($0)-1-2026-11-27-08-00-00.snapshot\"" }.joined(separator: ",")
        try folder.write(
            "config.json", "{\"collections_mapping\":{\(mapping)},\"collections_aliases\":{\"name\":\"\(collections[0])\"}}")
        let file = workspace.path("full.snapshot")
        for order in ["*.snapshot config.json", "config.json *.snapshot"] {
            try folder.shell("tar -cf \(file) \(order)")
            try workspace.expect(0, ["import", file, "--node", "n"])
            let target = "restored-\(order.first == "*" ? 1 : 2)"
            try workspace.restore("latest@n", onto: target)
            let restored = try Volume(workspace.path(target))
            #expect(try restored.read("aliases/data.json") == Array("{\"name\":\"\(collections[0])\"}".utf8))
            #expect(
                try fingerprint(restored.path)["fingerprint"] as? String == fingerprint(volume.path)["fingerprint"] as? String)
        }
        // The configuration may promise what is not there.
        try folder.shell("rm \(collections[0])-*; tar -cf \(file) config.json *.snapshot")
        #expect(try workspace.run(["import", file, "--node", "n"]).status == 17)
    }

    @Test func `What is missing in a snapshot file is said`() throws {
        let shard = workspace.path("shard.snapshot")
        try workspace.expect(
            0, ["export", "latest", "--format", "qdrant-shard", "--collection", "documents", "--shard", "0", "-o", shard])
        let one = try workspace.run(["import", shard, "--node", "n"])
        #expect(one.status == 1 && one.errors.contains("one shard"))
        let file = workspace.path("nameless.tar")
        try workspace.expect(
            0, ["export", "latest", "--format", "qdrant-collection", "--collection", "documents", "-o", file])
        #expect(try workspace.run(["import", file, "--node", "n"]).status == 64)
        try workspace.expect(0, ["import", file, "--node", "n", "--collection", "other"])
        #expect(try workspace.list("latest").contains("collections/other/config.json"))
        #expect(try workspace.run(["import", file, "--node", "n", "--collection", "../x"]).status == 64)
        // A stub of a shard that another node has.
        let folder = try Volume(workspace.path("folder"))
        try folder.shell("tar -xf \(file); mkdir 1; cp 0/*.json 1/; tar -cf \(file) .")
        let stub = try workspace.run(["import", file, "--node", "n", "--collection", "c"])
        #expect(stub.status == 1 && stub.errors.contains("shard 1"), "\(stub.errors)")
        for arguments in [
            ["--format", "qdrant-shard", "--collection", "documents", "--shard", "7"],
            ["--format", "qdrant-collection", "--collection", "none"],
        ] {
            #expect(try workspace.run(["export", "latest", "-o", file] + arguments).status == 1)
        }
        #expect(try workspace.run(["export", "latest", "-o", file, "--format", "qdrant-collection"]).status == 64)
    }
}
