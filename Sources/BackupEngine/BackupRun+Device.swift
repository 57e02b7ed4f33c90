import BackupBase
import BackupRepository
import VolumeIO

/// Block devices and raw images.
extension BackupRun {
    /// Clones an image where its file system can; reads all else as it is and
    /// shows that nobody wrote to it meanwhile.
    func captureDevice(_ writer: RepositoryWriter) async throws -> Captured {
        guard [nil, CaptureMethod.none, CaptureMethod.reflink].contains(options.capture) else {
            throw BackupError(
                .captureFailed, "--capture \(options.capture!.rawValue) is for directories, and \(options.path) is none",
                hint: "An image is cloned by --capture reflink; what nobody writes to is captured by --capture auto.")
        }
        let device = try openDevice()
        var reason = "it is not an image on a file system with reflinks"
        if options.capture == .reflink || options.capture == nil && canClone(device) {
            do {
                return try await cloneImage(writer)
            } catch let error as CaptureError {
                if error.isBusy || error.isRestless || options.capture != nil { throw failure(error, []) }
                reason = "reflink: \(error.reason)"
            }
        }
        return try await readQuietDevice(writer, reason)
    }

    private func canClone(_ device: VolumeScan) -> Bool {
        device.canBeUnchanged && [.xfs, .btrfs].contains(FileSystemKind(options.path))
    }

    /// As it is now.
    func openDevice() throws -> VolumeScan {
        let view: DeviceView
        do throws(SourceError) { view = try DeviceView(path: options.path) } catch {
            throw BackupError(.sourceUnreadable, "cannot read \(options.path)", cause: error)
        }
        return try VolumeScan(view, moment: view.moment) { note($0) }
    }

    private func cloneImage(_ writer: RepositoryWriter) async throws -> Captured {
        beginFingerprint()
        let capture = try ImageCapture.take(options.path, settings)
        report.capture = CaptureMethod.reflink.rawValue
        let captured = try await readSurely(capture, writer)
        report.consistency = .atomic
        return captured
    }

    /// - Parameter reason: why it is not cloned
    private func readQuietDevice(_ writer: RepositoryWriter, _ reason: String) async throws -> Captured {
        lists = nil
        let watch = DeviceWatch(path: options.path)
        beginFingerprint()
        let moment = ambient.now()
        let volume = try openDevice()
        var contents = takeUnchanged(volume)
        try await read(volume.filesToRead { contents[$0] != nil }, of: volume, into: writer, &contents)
        endFingerprint(of: moment)
        summarize(volume, contents)
        if watch?.sawNoWrite == true {
            report.capture = options.capture == nil ? "quiet" : "none"
            report.captureReason = reason
            report.consistency = .atomic
        } else if options.capture == nil {
            throw BackupError(
                .captureFailed, "\(options.path) was written to while it was read (\(reason))",
                hint: "Unmount it, or give a snapshot of it. A fuzzy copy is made with --capture none.")
        }
        return Captured(volume: volume, contents: contents)
    }
}
