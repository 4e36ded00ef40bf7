//! Policies to begin with.

/// A policy to begin with: commented, without lint warnings, and in canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// Who did what, bodies of changes without credentials, little noise.
    Recommended,
    /// Who did what, nothing else: the smallest log that answers for every change.
    Minimal,
    /// What the CIS Kubernetes Benchmark asks for in 3.2.1 and 3.2.2.
    Cis,
    /// The shape of the policy that Google's clusters run with, brought up to date.
    GkeLike,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 4] = [Self::Recommended, Self::Minimal, Self::Cis, Self::GkeLike];

    /// The name for command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recommended => "recommended",
            Self::Minimal => "minimal",
            Self::Cis => "cis",
            Self::GkeLike => "gke-like",
        }
    }

    /// The preset of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.as_str() == name)
    }

    /// The policy, in YAML.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Recommended => include_str!("presets/recommended.yaml"),
            Self::Minimal => include_str!("presets/minimal.yaml"),
            Self::Cis => include_str!("presets/cis.yaml"),
            Self::GkeLike => include_str!("presets/gke-like.yaml"),
        }
    }
}
