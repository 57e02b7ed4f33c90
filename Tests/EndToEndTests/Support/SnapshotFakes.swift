import Foundation
import Glibc
import TestSupport

/// Stand-ins for `zfs` and LVM's commands, which need a kernel that this one is
/// not. They make real copies of what is there at the moment they are called,
/// keep them until they are told to take them away, and refuse what the real
/// ones refuse; the arguments they got are in a log.
struct SnapshotFakes {
    let directory: String
    private let cleaning: Cleaning

    /// Detaches the devices of snapshots that were kept, with the last of the fakes.
    private final class Cleaning: Sendable {
        private let directory: String

        init(_ directory: String) { self.directory = directory }

        deinit {
            guard let state = try? Data(contentsOf: URL(filePath: "\(directory)/state")),
                let snapshots = try? JSONSerialization.jsonObject(with: state) as? [String: [String: Any]]
            else { return }
            for snapshot in snapshots.values {
                if let device = snapshot["device"] as? String { _ = try? Program.tool("losetup", ["--detach", device]) }
            }
        }
    }

    /// - Parameter mount: what is a dataset, or a logical volume, in their eyes
    init(_ workspace: Workspace, mount: LoopMount) throws {
        directory = workspace.path("fakes")
        cleaning = Cleaning(directory)
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let commands = ["lvs", "lvcreate", "lvremove", "lvrename", "dmsetup", "thin_delta"].map { ($0, Self.lvm) }
        for (name, script) in [("zfs", Self.zfs)] + commands {
            let text = "#!/usr/bin/env python3\nMOUNT = '\(mount.path)'\nIMAGE = '\(mount.image)'\nHOME = '\(directory)'\n"
            try Data((text + Self.common + script).utf8).write(to: URL(filePath: "\(directory)/\(name)"))
            chmod("\(directory)/\(name)", 0o755)
        }
    }

    /// Makes the logical volume one of a thin pool, of which so much is used.
    func makeThin(percent: String = "41.27") throws { try Data(percent.utf8).write(to: URL(filePath: "\(directory)/thin")) }

    /// What there is: the names of the snapshots.
    var snapshots: [String] {
        let state = (try? Data(contentsOf: URL(filePath: "\(directory)/state"))) ?? Data("{}".utf8)
        return ((try? JSONSerialization.jsonObject(with: state)) as? [String: Any] ?? [:]).keys.sorted()
    }

    var environment: [String: String] { ["PATH": "\(directory):\(ProcessInfo.processInfo.environment["PATH"] ?? "")"] }

    /// The arguments of all calls, one line each.
    var log: [String] {
        ((try? String(contentsOfFile: "\(directory)/log", encoding: .utf8)) ?? "").split(separator: "\n").map(String.init)
    }

    private static let common = """
        import json, os, shutil, subprocess, sys
        def fail(text, status=1):
            print(text, file=sys.stderr)
            sys.exit(status)
        name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
        with open(f"{HOME}/log", "a") as log: log.write(" ".join([name] + arguments) + "\\n")
        assert not any(key.startswith("BGBACKUP_PASS") for key in os.environ), "a secret's place was handed on"
        def state(): return json.load(open(f"{HOME}/state")) if os.path.exists(f"{HOME}/state") else {}
        def keep(value): json.dump(value, open(f"{HOME}/state", "w"))
        snapshots = state()

        """

    private static let zfs = """
        if arguments[:3] == ["list", "-H", "-o"] and arguments[3] == "name,mountpoint":
            if not os.path.realpath(arguments[4]).startswith(MOUNT): fail("cannot open: not a ZFS filesystem")
            print(f"tank/qdrant\\t{MOUNT}")
        elif arguments[:2] == ["list", "-H"]:
            for snapshot in snapshots: print(snapshot)
        elif arguments[0] == "snapshot":
            dataset, name = arguments[1].split("@")
            if dataset != "tank/qdrant": fail("dataset does not exist")
            if os.path.exists(f"{HOME}/full"): fail("cannot create snapshot: out of space")
            if arguments[1] in snapshots: fail("dataset already exists")
            target = f"{MOUNT}/.zfs/snapshot/{name}"
            os.makedirs(target)
            for entry in os.listdir(MOUNT):
                if entry != ".zfs": subprocess.run(["cp", "-a", f"{MOUNT}/{entry}", target], check=True)
            keep(snapshots | {arguments[1]: target})
        elif arguments[0] == "destroy":
            target = snapshots.pop(arguments[1], None) or fail("could not find any snapshots to destroy")
            shutil.rmtree(target)
            keep(snapshots)
        else: fail("unrecognized command", 2)
        """

    private static let lvm = """
        thin = open(f"{HOME}/thin").read() if os.path.exists(f"{HOME}/thin") else ""
        device = subprocess.run(["findmnt", "-no", "SOURCE", MOUNT], capture_output=True, text=True).stdout.strip()
        if name == "lvs":
            columns = arguments[arguments.index("-o") + 1]
            if columns == "vg_name,lv_name,pool_lv":
                if arguments[-1] != device: fail(f"Volume group for {arguments[-1]} not found", 5)
                print("  vg0,qdrant," + ("pool-0" if thin else ""))
            elif columns == "lv_name,origin":
                print("  qdrant,")
                for snapshot in snapshots: print(f"  {snapshot},qdrant")
            elif columns == "lv_path": print("  " + snapshots[arguments[-1].split("/")[1]]["device"])
            elif columns == "thin_id": print("  " + str(snapshots[arguments[-1].split("/")[1]]["id"]))
            elif columns == "data_percent" and arguments[-1] == "vg0/pool-0": print("  " + thin)
            else: fail(f"Unrecognised field: {columns}", 5)
        elif name == "lvcreate":
            if os.path.exists(f"{HOME}/full"): fail("insufficient free space: 25 extents needed, but only 0 available", 5)
            new = arguments[arguments.index("--name") + 1]
            if arguments[-1] != "vg0/qdrant" or "--snapshot" not in arguments: fail("no such volume", 5)
            if bool(thin) == ("--extents" in arguments): fail("Only thick snapshots have a size.", 5)
            image = f"{HOME}/{new}.img"
            # As the device mapper does: it freezes the file system around the snapshot.
            subprocess.run(["fsfreeze", "--freeze", MOUNT], check=True)
            try: subprocess.run(["cp", "--sparse=always", IMAGE, image], check=True)
            finally: subprocess.run(["fsfreeze", "--unfreeze", MOUNT], check=True)
            loop = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
            number = 2 + max((snapshot["id"] for snapshot in snapshots.values()), default=0)
            keep(snapshots | {new: {"device": loop, "image": image, "id": number}})
        elif name == "lvrename":
            group, old, new = arguments
            if group != "vg0" or old not in snapshots or new in snapshots: fail("Existing logical volume not found", 5)
            keep({new if key == old else key: value for key, value in snapshots.items()})
        elif name == "dmsetup":
            if arguments[:3] != ["message", "/dev/mapper/vg0-pool--0-tpool", "0"]: fail("Device does not exist.")
            held = f"{HOME}/metadata-snap"
            if arguments[3] == "reserve_metadata_snap":
                if os.path.exists(held): fail("message ioctl failed: Device or resource busy")
                open(held, "w").close()
            elif arguments[3] == "release_metadata_snap": os.unlink(held)
            else: fail("message ioctl failed: Invalid argument")
        elif name == "thin_delta":
            if os.path.exists(f"{HOME}/broken"): fail("bad checksum in metadata")
            if arguments[0] != "-m" or arguments[-1] != "/dev/mapper/vg0-pool--0_tmeta": fail("Couldn't stat path")
            if not os.path.exists(f"{HOME}/metadata-snap"): fail("no current metadata snap")
            def image(option):
                number = arguments[arguments.index(option) + 1]
                return open(next(s["image"] for s in snapshots.values() if str(s["id"]) == number), "rb"), number
            (left, one), (right, other) = image("--thin1"), image("--thin2")
            # What the devices' caches hold has to be in their images.
            for snapshot in snapshots.values(): os.fsync(os.open(snapshot["device"], os.O_RDWR))
            runs, number, size = [], 0, 128 * 512
            while True:
                a, b = left.read(size), right.read(size)
                if not a and not b: break
                # Zeros stand for blocks that are not mapped.
                kind = {(0, 0): None, (1, 0): "left_only", (0, 1): "right_only"}.get(
                    (int(a != bytes(len(a))), int(b != bytes(len(b)))), "same" if a == b else "different")
                if os.path.exists(f"{HOME}/lies") and kind: kind = "same"
                if runs and runs[-1][0] == kind: runs[-1][2] += 1
                else: runs.append([kind, number, 1])
                number += 1
            print(f'<superblock uuid="" time="1" transaction="2" version="2" data_block_size="128" nr_data_blocks="16384">')
            print(f'  <diff left="{one}" right="{other}">')
            for kind, begin, length in runs:
                if kind: print(f'    <{kind} begin="{begin}" length="{length}"/>')
            print("  </diff>")
            print("</superblock>")
        elif name == "lvremove":
            snapshot = snapshots.get(arguments[-1].split("/")[1]) or fail("Failed to find logical volume", 5)
            if subprocess.run(["findmnt", snapshot["device"]], capture_output=True).returncode == 0: fail("in use", 5)
            subprocess.run(["losetup", "--detach", snapshot["device"]], check=True)
            os.unlink(snapshot["image"])
            keep({key: value for key, value in snapshots.items() if value is not snapshot})
        """
}
