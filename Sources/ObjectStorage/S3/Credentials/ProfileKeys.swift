/// The keys of a profile of the shared files.
struct ProfileKeys: Sendable {
    var settings: CredentialSettings
    var transport: any HTTPTransport
    var profiles: ProfileSet

    /// Nil for a profile that says nothing of keys, only of a region or the like.
    ///
    /// Where a profile names several kinds, a role comes first, as in every SDK:
    /// the static keys beside it may be those that take it on.
    /// - Parameter takers: the profiles on the way here, each of which wants this one's keys
    func credentials(_ profile: Profile, for takers: [String] = []) async throws -> Credentials? {
        if profile.has("role_arn") {
            return try await profile.has("web_identity_token_file") ? webIdentity(profile) : role(profile, takers)
        }
        if profile.has("aws_access_key_id") || profile.has("aws_secret_access_key") { return try fixed(profile) }
        if let command = profile.text("credential_process") {
            return try await CredentialProcess(command: command, profile: profile.name, timeLimit: settings.processTimeLimit)
                .credentials()
        }
        if profile.values.keys.contains(where: { $0.hasPrefix("sso_") }) {
            throw CredentialError(
                "profile '\(profile.name)' signs in by SSO, which bgbackup does not do",
                hint: "Make a profile with `credential_process = aws configure export-credentials --profile \(profile.name)`.")
        }
        for setting in ["source_profile", "credential_source", "web_identity_token_file"] where profile.has(setting) {
            throw unusable(profile, "has \(setting) and no role_arn")
        }
        return nil
    }

    private func fixed(_ profile: Profile) throws -> Credentials {
        let name = "profile '\(profile.name)'"
        return try KeyFields(profile).credentials(source: name, origin: "\(name) in \(profiles.places)")
    }

    // MARK: - Roles

    private func webIdentity(_ profile: Profile) async throws -> Credentials {
        let path = settings.expanded(profile.text("web_identity_token_file") ?? "")
        let token = try CredentialFile.requireToken(path, what: "web_identity_token_file of profile '\(profile.name)'")
        return try await service(profile).assume(describe(profile), withWebIdentity: token)
    }

    private func role(_ profile: Profile, _ takers: [String]) async throws -> Credentials {
        if profile.has("mfa_serial") {
            throw CredentialError(
                "profile '\(profile.name)' has mfa_serial, and nobody is there to type a code",
                hint: "Use a role without MFA for backups.")
        }
        let role = try describe(profile)
        let keys: Credentials
        switch (profile.text("source_profile"), profile.text("credential_source")) {
        case (let source?, nil): keys = try await sourceKeys(source, profile, takers)
        case (nil, let source?): keys = try await serviceKeys(source, profile)
        case (nil, nil):
            throw unusable(profile, "has role_arn and none of source_profile, credential_source and web_identity_token_file")
        default: throw unusable(profile, "has both source_profile and credential_source")
        }
        return try await service(profile).assume(role, with: keys)
    }

    private func sourceKeys(_ source: String, _ profile: Profile, _ takers: [String]) async throws -> Credentials {
        // A profile that names itself means its own static keys.
        if source == profile.name { return try fixed(profile) }
        let path = takers + [profile.name]
        if path.contains(source) {
            throw unusable(profile, "leads back to itself: \((path + [source]).joined(separator: " → "))")
        }
        guard let next = profiles[source] else {
            throw unusable(profile, "names the source_profile '\(source)', which is not there")
        }
        guard let keys = try await credentials(next, for: path) else {
            throw unusable(profile, "names the source_profile '\(source)', which has no keys")
        }
        return keys
    }

    private func serviceKeys(_ source: String, _ profile: Profile) async throws -> Credentials {
        switch source {
        case "Environment":
            if let keys = try EnvironmentKeys(settings: settings).credentials() { return keys }
            throw unusable(profile, "wants the keys of the environment, where AWS_ACCESS_KEY_ID is not set")
        case "EcsContainer":
            let service = ContainerService(settings: settings, transport: transport)
            if service.isConfigured { return try await service.credentials() }
            throw unusable(profile, "wants the container's keys, and AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set")
        case "Ec2InstanceMetadata":
            do {
                return try await InstanceMetadata(settings: settings, transport: transport).credentials()
            } catch let absent as InstanceMetadata.Absent {
                throw unusable(profile, "wants the instance's keys: \(absent.reason)")
            }
        default:
            throw unusable(profile, "has a credential_source that is none of Environment, Ec2InstanceMetadata, EcsContainer")
        }
    }

    private func service(_ profile: Profile) -> SecurityTokenService {
        SecurityTokenService(settings: settings, transport: transport, profileRegion: profile.text("region"))
    }

    private func describe(_ profile: Profile) throws -> SecurityTokenService.Role {
        var role = SecurityTokenService.Role(arn: profile.text("role_arn") ?? "", askedBy: "profile '\(profile.name)'")
        role.sessionName = profile.text("role_session_name")
        role.externalID = profile.text("external_id")
        if let text = profile.text("duration_seconds") {
            guard let seconds = Int(text), (900...43200).contains(seconds) else {
                throw unusable(profile, "has a duration_seconds that is no number from 900 to 43200")
            }
            role.duration = seconds
        }
        return role
    }

    private func unusable(_ profile: Profile, _ what: String) -> CredentialError {
        CredentialError("profile '\(profile.name)' \(what)", hint: "Correct the profile in \(profiles.places).")
    }
}
