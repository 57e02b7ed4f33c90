/// The places where keys may be, in the order in which AWS's tools ask them. The
/// first one that is configured is the one: what is wrong with it is an error and
/// no reason to go on, or a backup would be written under somebody else's name.
struct CredentialChain: Sendable {
    var settings: CredentialSettings
    var transport: any HTTPTransport

    func load() async throws -> Credentials {
        if let path = settings.keyFile {
            return try KeyFile(path: settings.expanded(path), section: settings.profile ?? "default").credentials()
        }
        // A profile that the user chose for this store wins over the environment, as
        // with the AWS CLI's --profile; AWS_PROFILE does not.
        if settings.profile != nil, let keys = try await profileKeys() { return keys }
        if let keys = try EnvironmentKeys(settings: settings).credentials() { return keys }
        if settings.profile == nil, let keys = try await profileKeys() { return keys }
        if let keys = try await webIdentityKeys() { return keys }
        let container = ContainerService(settings: settings, transport: transport)
        if container.isConfigured { return try await container.credentials() }
        do {
            return try await InstanceMetadata(settings: settings, transport: transport).credentials()
        } catch let absent as InstanceMetadata.Absent {
            throw nothingFound(absent)
        }
    }

    private func profileKeys() async throws -> Credentials? {
        let profiles = try ProfileSet(settings)
        guard let profile = profiles[settings.profileName] else {
            guard let named = settings.namedProfile else { return nil }
            throw CredentialError(
                "there is no profile '\(named.name)', which \(named.by) names, in \(profiles.places)",
                hint: "Correct the name, or add the profile with `aws configure --profile \(named.name)`.")
        }
        return try await ProfileKeys(settings: settings, transport: transport, profiles: profiles).credentials(profile)
    }

    private func webIdentityKeys() async throws -> Credentials? {
        let variable = "AWS_WEB_IDENTITY_TOKEN_FILE"
        guard let path = settings.variable(variable) else { return nil }
        guard let arn = settings.variable("AWS_ROLE_ARN") else {
            throw CredentialError("\(variable) is set and AWS_ROLE_ARN is not", hint: "Set both; EKS sets them itself.")
        }
        let token = try CredentialFile.requireToken(path, what: variable)
        var role = SecurityTokenService.Role(arn: arn, askedBy: "web identity")
        role.sessionName = settings.variable("AWS_ROLE_SESSION_NAME")
        return try await SecurityTokenService(settings: settings, transport: transport, profileRegion: profileRegion(settings))
            .assume(role, withWebIdentity: token)
    }

    private func nothingFound(_ absent: InstanceMetadata.Absent) -> CredentialError {
        let files = (try? ProfileSet(settings).places) ?? "the shared files"
        return CredentialError(
            "no credentials found",
            hint: "Looked at: a key file (none given); AWS_ACCESS_KEY_ID (not set); profile '\(settings.profileName)' in \(files)"
                + " (has no keys); AWS_WEB_IDENTITY_TOKEN_FILE (not set); AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI"
                + " (not set); EC2 instance metadata (\(absent.reason)).")
    }
}
