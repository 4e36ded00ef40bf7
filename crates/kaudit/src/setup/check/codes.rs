//! The kinds of findings. Codes are API: they are never renumbered.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Note,
    /// It works, and hardly as its author wants.
    Warning,
    /// The API server does not start, or no event arrives.
    Error,
}

impl Severity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

macro_rules! codes {
    ($($code:literal $name:ident $severity:ident $explanation:literal)+) => {
        /// The kind of a finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code {
            $(#[doc = $explanation] $name,)+
        }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)+ }
            }

            pub(crate) const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// Why this kind of finding matters.
            pub(crate) const fn explanation(self) -> &'static str {
                match self { $(Self::$name => $explanation,)+ }
            }
        }
    };
}

codes! {
    "KS001" Unreadable Error "a file that does not parse configures nothing"
    "KS002" UnknownKind Error "only files that configure audit logging can be checked"
    "KS010" UnknownFlag Error "kube-apiserver does not start with a flag it does not know"
    "KS011" BadValue Error "kube-apiserver does not start with a value it cannot read"
    "KS012" RepeatedFlag Warning "of a flag that is given twice the last one counts, and readers look at the first"
    "KS013" NoPolicy Error "without a policy no event is made, whatever backends there are"
    "KS014" NoBackend Error "without a backend the policy decides about events that go nowhere"
    "KS015" IdleFlag Warning "settings of a backend that is off do nothing"
    "KS016" NoAudit Error "without audit flags kube-apiserver records nothing"
    "KS017" OldKubeadmForm Error "kubeadm refuses a configuration whose fields are of another version's form"
    "KS020" RelativePath Error "a relative path is looked up in the working folder of the API server's process"
    "KS021" PolicyNotMounted Error "the API server does not start when it cannot read its policy"
    "KS022" WebhookNotMounted Error "the API server does not start when it cannot read the webhook's kubeconfig"
    "KS023" LogNotMounted Warning "a log inside of the container goes with it, and nothing on the node can read it"
    "KS024" LogReadOnly Error "the API server does not start when it cannot create its log"
    "KS025" MountType Warning "without the right type a missing file becomes an empty folder of that name, and the API server does not start"
    "KS026" LogFileMounted Error "a file that is itself a mount cannot be renamed, so rotation fails and events are lost"
    "KS027" DanglingMount Error "the kubelet refuses a pod whose mounts and volumes do not belong together"
    "KS028" NotOnNode Error "what a kind node mounts into the pod must first be mounted into the node"
    "KS030" NoRotation Warning "maxsize 0 means no rotation since Kubernetes 1.36, so the file grows until the disk is full, and 100 MB before"
    "KS031" StandardOutput Warning "the container runtime cuts lines at 16 KiB and the kubelet rotates the container's log away, unread or not"
    "KS032" NothingDeleted Warning "rotated files that are never deleted fill the disk"
    "KS033" ShortHorizon Warning "rotated files that are deleted before the collector has read them are lost"
    "KS034" LegacyFormat Error "the legacy format has no bodies and is not JSON; kaudit reads JSON"
    "KS035" DefaultRotation Warning "the defaults changed with Kubernetes 1.36: before it nothing was ever deleted"
    "KS040" BlockingWebhook Warning "every request waits until the collector has answered, through all retries"
    "KS041" BlockingStrict Warning "in blocking-strict the cluster refuses requests when an event cannot be stored: a full disk or a silent collector stops it"
    "KS042" NoTruncation Warning "a policy that records responses makes events of tens of megabytes from a single list, in the API server's memory too"
    "KS043" TinyTruncation Warning "an event that is too large even without its bodies is dropped"
    "KS044" SlowThrottle Warning "what comes faster than the throttle lets through fills the buffer, and then events are dropped"
    "KS045" BatchSize Warning "a batch that never fills or is hard to deliver within 30 seconds costs events"
    "KS046" LongWait Warning "events that arrive later than the collector waits for them look like lost ones"
    "KS050" ServerUrl Error "without a URL there is no collector to send to"
    "KS051" PlainHttp Error "an API server sends no credentials over http, and anyone on the way reads the events"
    "KS052" SourcePath Error "the collector knows whose events these are by the URL's path, /v1/audit/CLUSTER/INSTANCE"
    "KS053" DroppedQuery Warning "the API server drops the query and the fragment of the URL"
    "KS054" NoAuthority Warning "without a certificate authority only the public ones of the system are trusted, which hardly issued the collector's certificate"
    "KS055" InsecureSkipVerify Error "without verification anyone on the way can take the events and the token"
    "KS056" BadPem Error "the API server does not start with a certificate or key it cannot read"
    "KS057" CertificateTime Error "no connection is made with a certificate outside of its validity"
    "KS058" OtherHost Error "no connection is made to a server whose certificate is for another host"
    "KS059" NoCredentials Warning "a collector that knows its sources by certificate or token refuses events without"
    "KS060" HalfCertificate Error "a certificate without its key, or a key of another certificate, authenticates nobody"
    "KS061" WrongUsage Error "a certificate that is not for clients is refused by the collector"
    "KS062" DanglingContext Error "a kubeconfig whose current context leads nowhere has no server"
    "KS063" PluginInPod Warning "the API server's image has no programs that could run as a credential plugin"
    "KS064" CredentialNotMounted Error "the API server cannot read a file that is not mounted"
    "KS065" ExpiresSoon Warning "events stop when the certificate expires, and an embedded one is read at the API server's start only"
    "KS070" OutsideVar Error "Talos makes files below /var only, and a node whose machine.files fail does not boot"
    "KS071" FileMode Error "Talos runs the API server as user 65534, which cannot read a file of root without the last read bit"
    "KS072" TwoTalosForms Error "Talos refuses cluster.apiServer beside KubeAPIServerConfig"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_order() {
        let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }

    #[test]
    fn every_code_is_documented() {
        let page = include_str!("../../../../../docs/setup.md");
        for code in Code::ALL {
            let row = format!(
                "| {} | {} | {} |",
                code.as_str(),
                code.severity().as_str(),
                code.explanation()
            );
            assert!(page.contains(&row), "docs/setup.md lacks `{row}`");
        }
    }
}
