/// The table of wrong policies.
extension WrongPolicy {
    static let syntax: [WrongPolicy] = [
        WrongPolicy(
            4, "\tname: good",
            "4:1: is no YAML: while scanning for the next token, found character that cannot start any token; indent with spaces, not with tabs"
        ),
        WrongPolicy(
            12, "      onCalendar: *-*-* 02:00:00",
            "12:19: a text that begins with '*' has to stand in quotes; did you mean \"*-*-* 02:00:00\"?"),
        WrongPolicy(
            12, "      onCalendar: *:0/15", "12:19: a text that begins with '*' has to stand in quotes; did you mean \"*:0/15\"?"),
        WrongPolicy(
            12, "      onCalendar: *daily", "12:19: a text that begins with '*' has to stand in quotes; did you mean \"*daily\"?"),
        WrongPolicy(
            9, "    url: &place /srv/backup",
            "9:10: anchors and aliases (&name, *name) are refused; write the value out wherever it is needed"),
        WrongPolicy(
            9, "    url: !!str /srv/backup", "9:10: a tag or an anchor stands before spec.repository.url; write the value alone"),
        WrongPolicy(9, "    url: !secret x", "9:10: a tag or an anchor stands before spec.repository.url; write the value alone"),
        WrongPolicy(
            9, "    url: \"/srv/backup", "14:1: is no YAML: while scanning a quoted scalar, found unexpected end of stream"),
        WrongPolicy(
            9, "    url: [/srv/backup", "10:12: is no YAML: while parsing a flow sequence, did not find expected ',' or ']'"),
        WrongPolicy(
            9, "    url: @srv",
            "9:10: is no YAML: while scanning for the next token, found character that cannot start any token; a text that begins with '@' has to stand in quotes"
        ),
        WrongPolicy(
            9, "    url: a: b",
            "9:11: is no YAML: mapping values are not allowed in this context; check the indentation, or put a text with ': ' in it in quotes"
        ),
        WrongPolicy(8, " repository:", "8:2: is no YAML: while parsing a block mapping, did not find expected key"),
        WrongPolicy(9, "    url: /srv/backup\n    url: /srv/other", "10:5: the key 'url' is there twice; the first is in line 9"),
        WrongPolicy(2, "kind: BackupPolicy\nspec: {}", "6:1: the key 'spec' is there twice; the first is in line 3"),
        WrongPolicy(14, "---\napiVersion: bgbackup.io/v1", "14:1: a second document begins; one file holds one policy"),
        WrongPolicy(14, "  [a]: b", "14:3: a key in spec is a list; a key is one word"),
        WrongPolicy(14, "  <<: {paused: true}", "14:3: merge keys (<<) are refused; write the values out"),
    ]

    static let keys: [WrongPolicy] = [
        WrongPolicy(1, "# nothing", "2:1: the file has no 'apiVersion'; add 'apiVersion:' with 'bgbackup.io/v1'"),
        WrongPolicy(
            1, "apiVersion: bgbackup.io/v2", "1:13: apiVersion: 'bgbackup.io/v2' is not known; did you mean 'bgbackup.io/v1'?"),
        WrongPolicy(2, "kind: Policy", "2:7: kind: 'Policy' is not known; valid: BackupPolicy"),
        WrongPolicy(2, "kind: backuppolicy", "2:7: kind: 'backuppolicy' is not known; did you mean 'BackupPolicy'?"),
        WrongPolicy(14, "extra: 1", "14:1: unknown key 'extra'; valid: apiVersion, kind, metadata, spec"),
        WrongPolicy(
            14, "  retention: {keepDayly: 7}", "14:15: unknown key 'keepDayly' in spec.retention; did you mean 'keepDaily'?"),
        WrongPolicy(
            14, "  retention: {keep_daily: 7}", "14:15: unknown key 'keep_daily' in spec.retention; did you mean 'keepDaily'?"),
        WrongPolicy(14, "  keepDaily: 7", "14:3: unknown key 'keepDaily' in spec; it belongs to spec.retention"),
        WrongPolicy(14, "paused: true", "14:1: unknown key 'paused'; it belongs to spec"),
        WrongPolicy(13, "      KeepFor: 14d", "13:7: unknown key 'KeepFor' in spec.schedules[0]; did you mean 'keepFor'?"),
        WrongPolicy(
            13, "      cron: 0 2 * * *", "13:7: unknown key 'cron' in spec.schedules[0]; valid: name, onCalendar, keepFor, tags"),
        WrongPolicy(4, "  labels: {a: b}", "4:3: metadata has no 'name'; add 'name:' with a name of a-z, 0-9 and '-'"),
        WrongPolicy(
            7, "    device: /dev/vg/qdrant\n    path: /var/lib/qdrant",
            "7:5: spec.source has both 'path' and 'device'; give one of them"),
        WrongPolicy(
            7, "    qdrant: {url: http://127.0.0.1:6333}", "7:5: spec.source has none of 'path' and 'device'; give one of them"),
        WrongPolicy(
            14, "  retention:",
            "14:13: spec.retention is empty; leave the key out, or give a mapping of keepLast, keepHourly, keepDaily, …"),
        WrongPolicy(14, "  node: ~", "14:9: spec.node is empty; leave the key out, or give a text"),
        WrongPolicy(14, "  tags: nightly", "14:9: spec.tags is no list; did you mean [nightly]?"),
        WrongPolicy(14, "  tags: []", "14:9: spec.tags has 0 entries; valid: 1 to 32"),
        WrongPolicy(14, "  node: [a]", "14:9: spec.node is a list; give a text"),
        WrongPolicy(14, "  check: daily", "14:10: spec.check is a single value; give a mapping of onCalendar, readData"),
        WrongPolicy(14, "  tags: [[a]]", "14:10: spec.tags[0] is a list; give a text"),
        WrongPolicy(
            14, "  drill: {snapshot: latest}",
            "14:10: spec.drill has no 'onCalendar'; add 'onCalendar:' with a calendar expression such as \"daily\" or \"*-*-* 02:00:00\""
        ),
        WrongPolicy(
            14, "  immutability: {lockFor: 14d}",
            "14:17: spec.immutability has no 'mode'; add 'mode:' with one of governance, compliance"),
        WrongPolicy(
            14, "  notifications: {webhooks: [{url: {file: /a}}]}",
            "14:30: spec.notifications.webhooks[0] has no 'on'; add 'on:' with a list, each entry one of success, warning, failure, recovered, drillFailed, damage"
        ),
    ]

    static let values: [WrongPolicy] = [
        WrongPolicy(
            4, "  name: My Policy",
            "4:9: metadata.name: 'My Policy' is no name: a-z, 0-9 and '-' inside, at most 63; did you mean 'my-policy'?"),
        WrongPolicy(
            4, "  name: a/../b",
            "4:9: metadata.name: 'a/../b' is no name: a-z, 0-9 and '-' inside, at most 63; did you mean 'a-b'?"),
        WrongPolicy(4, "  name: \"\"", "4:9: metadata.name: '' is no name: a-z, 0-9 and '-' inside, at most 63"),
        WrongPolicy(14, "  node: \"a\\nb\"", "14:9: spec.node: 'a\\x0ab' has control characters or several lines; give one line"),
        WrongPolicy(14, "  paused: yes", "14:11: spec.paused: 'yes' is not true or false; did you mean true, without quotes?"),
        WrongPolicy(14, "  paused: off", "14:11: spec.paused: 'off' is not true or false; did you mean false, without quotes?"),
        WrongPolicy(
            14, "  paused: \"true\"", "14:11: spec.paused: 'true' is not true or false; did you mean true, without quotes?"),
        WrongPolicy(14, "  paused: 2", "14:11: spec.paused: '2' is not true or false; valid: true, false"),
        WrongPolicy(
            13, "      keepFor: 14",
            "13:16: spec.schedules[0].keepFor: '14' has no unit; did you mean '14s' or '14h'? valid units: s, m, h, d, w, y"),
        WrongPolicy(
            13, "      keepFor: 2 weeks",
            "13:16: spec.schedules[0].keepFor: '2 weeks' has the unit ' weeks', which is not known; did you mean '2w'?"),
        WrongPolicy(
            13, "      keepFor: 1mo",
            "13:16: spec.schedules[0].keepFor: '1mo' has the unit 'mo', which is not known; valid units: s, m, h, d, w, y"),
        WrongPolicy(
            13, "      keepFor: 1d12h",
            "13:16: spec.schedules[0].keepFor: '1d12h' has several units; write one number and one unit, for example 90m"),
        WrongPolicy(13, "      keepFor: -1d", "13:16: spec.schedules[0].keepFor: '-1d' is negative; valid: 1h to 100y"),
        WrongPolicy(13, "      keepFor: 5m", "13:16: spec.schedules[0].keepFor: '5m' is out of range; valid: 1h to 100y"),
        WrongPolicy(
            13, "      keepFor: 1e9d",
            "13:16: spec.schedules[0].keepFor: '1e9d' has several units; write one number and one unit, for example 90m"),
        WrongPolicy(
            13, "      keepFor: forever",
            "13:16: spec.schedules[0].keepFor: 'forever' is no duration; write one number and one unit, for example 48h; valid units: s, m, h, d, w, y"
        ),
        WrongPolicy(
            14, "  limits: {read: 80}",
            "14:18: spec.limits.read: '80' has no unit; did you mean '80MiB/s'? valid units: B/s, KB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s"
        ),
        WrongPolicy(
            14, "  limits: {read: 80MiB}", "14:18: spec.limits.read: '80MiB' is a size, not a rate; did you mean '80MiB/s'?"),
        WrongPolicy(
            14, "  limits: {read: 80mb/s}",
            "14:18: spec.limits.read: '80mb/s' has the unit 'mb/s', which is not known; did you mean '80MB/s'?"),
        WrongPolicy(
            14, "  limits: {read: 80M}",
            "14:18: spec.limits.read: '80M' has the unit 'M', which is not known; did you mean '80MiB/s'?"),
        WrongPolicy(
            14, "  limits: {read: 100Mbit/s}",
            "14:18: spec.limits.read: '100Mbit/s' has the unit 'Mbit/s', which is not known; valid units: B/s, KB/s, MB/s, GB/s, TB/s, KiB/s, MiB/s, GiB/s, TiB/s"
        ),
        WrongPolicy(14, "  limits: {read: 1B/s}", "14:18: spec.limits.read: '1B/s' is out of range; valid: 1KiB/s to 1000TB/s"),
        WrongPolicy(
            14, "  retention: {keepLast: 010}", "14:25: spec.retention.keepLast: '010' begins with a zero; did you mean 10?"),
        WrongPolicy(14, "  retention: {keepLast: 0x10}", "14:25: spec.retention.keepLast: '0x10' is no whole number"),
        WrongPolicy(
            14, "  retention: {keepLast: 1_000}", "14:25: spec.retention.keepLast: '1_000' is no whole number; did you mean 1000?"
        ),
        WrongPolicy(14, "  retention: {keepLast: 1.5}", "14:25: spec.retention.keepLast: '1.5' is no whole number"),
        WrongPolicy(
            14, "  retention: {keepLast: -1}", "14:25: spec.retention.keepLast: '-1' is out of range; valid: 1 to 100000"),
        WrongPolicy(
            14, "  retention: {keepLast: 99999999999999999999}",
            "14:25: spec.retention.keepLast: '99999999999999999999' is out of range; valid: 1 to 100000"),
        WrongPolicy(
            14, "  retention: {maxDeleteRatio: 1.5}", "14:31: spec.retention.maxDeleteRatio: '1.5' is out of range; valid: 0 to 1"
        ),
        WrongPolicy(
            14, "  retention: {maxDeleteRatio: 50%}",
            "14:31: spec.retention.maxDeleteRatio: '50%' is a percentage, not a number from 0 to 1; did you mean 0.5?"),
        WrongPolicy(
            14, "  retention: {maxDeleteRatio: .inf}", "14:31: spec.retention.maxDeleteRatio: '.inf' is no number from 0 to 1"),
        WrongPolicy(
            14, "  retention: {maxDeleteRatio: -0.1}", "14:31: spec.retention.maxDeleteRatio: '-0.1' is no number from 0 to 1"),
        WrongPolicy(
            14, "  check: {onCalendar: daily, readData: 5}",
            "14:40: spec.check.readData: '5' is no share in percent; did you mean '5%'?"),
        WrongPolicy(
            14, "  check: {onCalendar: daily, readData: 500%}",
            "14:40: spec.check.readData: '500%' is out of range; valid: above 0% to 100%"),
        WrongPolicy(
            14, "  limits: {window: {from: 22, to: 06:00, outside: 1MiB/s}}",
            "14:27: spec.limits.window.from: '22' is no time of day; did you mean \"22:00\"?"),
        WrongPolicy(
            14, "  limits: {window: {from: 9:00, to: 06:00, outside: 1MiB/s}}",
            "14:27: spec.limits.window.from: '9:00' is no time of day; did you mean \"09:00\"?"),
        WrongPolicy(
            14, "  limits: {window: {from: 22:00, to: 24:00, outside: 1MiB/s}}",
            "14:38: spec.limits.window.to: '24:00' is no time of day; did you mean \"00:00\"?"),
        WrongPolicy(
            14, "  limits: {window: {from: 22:60, to: 06:00, outside: 1MiB/s}}",
            "14:27: spec.limits.window.from: '22:60' is no time of day; write it as \"22:00\""),
        WrongPolicy(
            12, "      onCalendar: 0 2 * * *",
            "12:19: spec.schedules[0].onCalendar: '0 2 * * *' is in cron's form, not in systemd's; did you mean \"*-*-* 02:00:00\"?"
        ),
        WrongPolicy(
            12, "      onCalendar: 30 4 * * 0",
            "12:19: spec.schedules[0].onCalendar: '30 4 * * 0' is in cron's form, not in systemd's; did you mean \"Sun *-*-* 04:30:00\"?"
        ),
        WrongPolicy(
            12, "      onCalendar: dayly",
            "12:19: spec.schedules[0].onCalendar: 'dayly' is no calendar expression; did you mean 'daily'?"),
        WrongPolicy(
            12, "      onCalendar: \"*-*-* 25:00\"",
            "12:19: spec.schedules[0].onCalendar: '*-*-* 25:00' is no calendar expression; see systemd.time(7); for example daily, \"*-*-* 02:00:00\", \"Sun *-*-* 04:00\", \"*:0/15\""
        ),
        WrongPolicy(
            12, "      onCalendar: Son *-*-* 04:00",
            "12:19: spec.schedules[0].onCalendar: 'Son *-*-* 04:00' is no calendar expression; see systemd.time(7); for example daily, \"*-*-* 02:00:00\", \"Sun *-*-* 04:00\", \"*:0/15\""
        ),
        WrongPolicy(7, "    path: storage", "7:11: spec.source.path: 'storage' is not absolute; did you mean '/storage'?"),
        WrongPolicy(
            7, "    path: ~/storage",
            "7:11: spec.source.path: '~/storage' begins with '~', which nothing expands; write the path in full"),
        WrongPolicy(
            7, "    path: $HOME/storage",
            "7:11: spec.source.path: '$HOME/storage' has a variable, which nothing expands; write the path in full"),
        WrongPolicy(
            7, "    path: /var/../etc",
            "7:11: spec.source.path: '/var/../etc' has a '.' or '..' in it; write the path that it leads to"),
        WrongPolicy(
            7, "    path: /var/lib/qdrant\n    qdrant: {url: localhost:6333}",
            "8:19: spec.source.qdrant.url: is no http:// or https:// address; did you mean 'http://localhost:6333'?"),
        WrongPolicy(
            7, "    path: /var/lib/qdrant\n    qdrant: {url: \"http://u:p@host\"}",
            "8:19: spec.source.qdrant.url: an address must not hold user and password; give the key with apiKey: {file: /path}"),
        WrongPolicy(
            7, "    path: /var/lib/qdrant\n    qdrant: {url: \"http://:6333/\", apiKey: abc}",
            "8:44: spec.source.qdrant.apiKey is a secret, which never stands in a policy; write {credential: NAME} or {file: /path}"
        ),
        WrongPolicy(
            9, "    url: gs://bucket/x",
            "9:10: spec.repository.url: is no store that bgbackup knows; valid: a path, file:///path or s3://BUCKET/PREFIX"),
        WrongPolicy(
            9, "    url: /srv/backup\n    password: {env: PASSWORD}",
            "10:16: spec.repository.password is taken from the environment, which every program inherits that is started; write {credential: NAME} or {file: /path}"
        ),
        WrongPolicy(
            9, "    url: /srv/backup\n    password: {credential: a, file: /b}",
            "10:15: spec.repository.password has both 'credential' and 'file'; give one of them"),
        WrongPolicy(
            9, "    url: /srv/backup\n    password: {credential: ../a}",
            "10:28: spec.repository.password.credential is no place of a secret; write {credential: NAME} or {file: /path}"),
        WrongPolicy(
            14, "  capture: {method: snapshot}",
            "14:21: spec.capture.method: 'snapshot' is not known; valid: auto, btrfs, reflink, freeze, lvm, zfs, pause, none"),
        WrongPolicy(
            14, "  capture: {method: refling}", "14:21: spec.capture.method: 'refling' is not known; did you mean 'reflink'?"),
        WrongPolicy(14, "  capture: {maxFreeze: 2h}", "14:24: spec.capture.maxFreeze: '2h' is out of range; valid: 0.001s to 1h"),
        WrongPolicy(
            14, "  drill: {onCalendar: weekly, snapshot: newest}",
            "14:41: spec.drill.snapshot: 'newest' is not known; valid: latest, random, oldest"),
        WrongPolicy(
            14, "  notifications: {webhooks: [{url: {file: /a}, on: [fail]}]}",
            "14:53: spec.notifications.webhooks[0].on[0]: 'fail' is not known; valid: success, warning, failure, recovered, drillFailed, damage"
        ),
    ]

    static let combinations: [WrongPolicy] = [
        WrongPolicy(
            14, "  capture: {method: none}",
            "14:13: capture method none copies a live volume, which may mix several moments; write acceptFuzzy: true if that will do, or method: auto"
        ),
        WrongPolicy(
            14, "  capture: {method: freeze}",
            "14:13: capture method freeze needs a program that makes the snapshot; add hook: /path/to/program"),
        WrongPolicy(
            14, "  capture: {hook: /bin/snap}",
            "14:13: capture.hook belongs to method freeze, not to auto; did you mean method: freeze?"),
        WrongPolicy(
            9, "    url: /var/lib/qdrant/backup",
            "9:5: spec.repository.url is inside the source /var/lib/qdrant; a backup must not back itself up; take another path"),
        WrongPolicy(
            9, "    url: file:///var/lib", "9:5: the source /var/lib/qdrant is inside spec.repository.url; take another path"),
        WrongPolicy(
            9, "    url: /srv/backup\n    s3: {region: x}",
            "10:5: spec.repository.s3 belongs to an s3:// place, and '/srv/backup' is a directory; remove it"),
        WrongPolicy(
            13, "      keepFor: 14d\n    - {name: daily, onCalendar: hourly}",
            "14:14: two schedules are named 'daily'; the first is in line 11"),
        WrongPolicy(
            14, "  immutability: {mode: compliance, lockFor: 7d}",
            "14:3: immutability needs an object store that locks, and the repository is a directory; use an s3:// repository, or remove it"
        ),
        WrongPolicy(
            14, "  limits: {window: {from: 22:00, to: \"22:00\", outside: 1MiB/s}}",
            "14:38: the window ends when it begins; give two different times"),
        WrongPolicy(
            13, "  prune: {onCalendar: daily}",
            "13:3: prune frees nothing: no rule of retention and no keepFor lets a snapshot go; add retention: {keepDaily: 7}, or keepFor to a schedule"
        ),
        WrongPolicy(
            14, "  drill: {onCalendar: weekly, target: /var/lib/qdrant/drill}",
            "14:31: drill.target is inside the source /var/lib/qdrant; take another path"),
        WrongPolicy(
            14, "  drill: {onCalendar: weekly, target: /srv/backup/drill}",
            "14:31: drill.target is inside the repository /srv/backup; take another path"),
        WrongPolicy(
            14, "  drill: {onCalendar: weekly, objectives: {rpo: 2h}}",
            "14:49: an rpo of 2h cannot be met: the most frequent schedule leaves up to 1d between two backups; back up more often, or raise it above 1d"
        ),
        WrongPolicy(
            14, "  metrics: {textfile: /var/lib/node/bgbackup.txt}",
            "14:23: metrics.textfile does not end in .prom, and the node exporter reads nothing else; did you mean '/var/lib/node/bgbackup.txt.prom'?"
        ),
        WrongPolicy(
            14, "  copies: [{name: a, url: /srv/backup, onCalendar: daily}]",
            "14:27: the copy 'a' is the repository itself; take another place"),
        WrongPolicy(
            14, "  copies: [{name: a, url: /srv/b, onCalendar: daily}, {name: a, url: /srv/c, onCalendar: daily}]",
            "14:62: two copies are named 'a'; give each a name of its own"),
        WrongPolicy(
            14, "  copies: [{name: a, url: /var/lib/qdrant/x, onCalendar: daily}]",
            "14:22: spec.copies[0].url is inside the source /var/lib/qdrant; a backup must not back itself up; take another path"),
        s3(
            9, "    url: s3://bucket/prefix?region=x",
            "9:10: spec.repository.url: carries options of the URL; write them as keys, for example s3: {region: eu-central-1}"),
        s3(9, "    url: s3://b/prefix", "9:5: spec.repository.url: 'b' is no name of a bucket; give s3://BUCKET/PREFIX."),
        s3(
            11, "      region: eu central",
            "11:15: spec.repository.s3.region: 'eu central' is no value of the option 'region'; give one word, for example eu-central-1."
        ),
        s3(
            11, "      endpoint: minio local",
            "11:17: spec.repository.s3.endpoint: the endpoint is no address of a server: 'minio local'; give https://HOST[:PORT]."
        ),
        s3(
            11, "      sse: aes",
            "11:12: spec.repository.s3.sse: 'aes' is no value of the option 'sse'; give AES256, aws:kms or aws:kms:KEY."),
        s3(
            11, "      sse: AES256\n      sseCustomerKey: {file: /k}",
            "12:7: spec.repository.s3 has both sse and sseCustomerKey; give one of them"),
        s3(
            11, "      checksums: sometimes",
            "11:18: spec.repository.s3.checksums: 'sometimes' is not true or false; valid: true, false"),
        s3(11, "      connections: 0", "11:20: spec.repository.s3.connections: '0' is out of range; valid: 1 to 256"),
        s3(
            11, "      storage-class: X",
            "11:7: unknown key 'storage-class' in spec.repository.s3; valid: endpoint, region, style, profile, credentials, caFile, class, sse, sseCustomerKey, checksums, connections, timeout, retryFor, multipartAbove, partSize"
        ),
        s3(11, "      ca-file: /x", "11:7: unknown key 'ca-file' in spec.repository.s3; did you mean 'caFile'?"),
        s3(
            14, "  immutability: {mode: legal, lockFor: 7d}",
            "14:24: spec.immutability.mode: 'legal' is not known; valid: governance, compliance"),
        s3(
            14, "  immutability: {mode: compliance, lockFor: 12h}",
            "14:45: spec.immutability.lockFor: '12h' is out of range; valid: 1d to 100y"),
    ]
}
