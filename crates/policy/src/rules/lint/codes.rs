//! The kinds of findings. Codes are API: they are never renumbered.

use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Worth knowing; often intended.
    Note,
    /// The policy does something that its author hardly wants.
    Warning,
    /// The API server does not start with it.
    Error,
}

impl Severity {
    /// The word in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
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
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum LintCode {
            $(#[doc = $explanation] $name,)+
        }

        impl LintCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable name, as `KP020`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)+
                }
            }

            /// How bad findings of this kind are.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self {
                    $(Self::$name => Severity::$severity,)+
                }
            }

            /// Why this kind of finding matters.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$name => $explanation,)+
                }
            }
        }
    };
}

codes! {
    "KP001" Unreadable Error
        "The API server cannot decode the document and refuses to start."
    "KP002" NotAPolicy Error
        "The document is not an audit policy with rules, and the API server refuses to start."
    "KP003" InvalidValue Error
        "The API server validates policies and refuses to start with this one."
    "KP010" UnknownField Warning
        "After a failed strict decoding the API server decodes once more, leniently: unknown fields vanish with one line in its log, and a rule that loses a condition matches more."
    "KP011" RepeatedField Warning
        "Of repeated fields only one counts, which need not be the one that is read first."
    "KP020" Unreachable Warning
        "The first rule that matches decides, so a rule whose requests are all matched earlier has no effect."
    "KP021" NeverMatches Warning
        "Users, groups, verbs, namespaces and names are compared as whole texts: no wildcards, no HTTP methods, no short names."
    "KP022" WrongGroup Warning
        "A resource is matched together with its API group; in the wrong group it matches nothing."
    "KP023" SubresourceForgotten Note
        "The name of a resource covers the object itself; its subresources are named one by one, or all with resource/*."
    "KP024" SubresourceUnrecorded Warning
        "The name of a resource covers the object itself and none of its subresources: a session in a container is pods/exec, not pods."
    "KP030" SensitiveBody Warning
        "The bodies of these resources contain credentials: whoever may read the audit log may then use them."
    "KP031" HiddenMutation Warning
        "Level None leaves no trace of a change: neither who made it nor that it was made."
    "KP032" HiddenSecretRead Warning
        "Secrets in kube-system hold the credentials of the cluster itself; reading them is what an intruder does first."
    "KP033" NoCatchAll Warning
        "A request that no rule matches is at level None: it leaves no event, and nobody is told."
    "KP040" DoubledVolume Note
        "A request makes an event when it arrives and one when it is answered; the second contains all of the first, which matters only when the API server dies in between."
    "KP041" OmittedOutcome Warning
        "The outcome of a request stands only in the events of its later stages."
}

impl fmt::Display for LintCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
