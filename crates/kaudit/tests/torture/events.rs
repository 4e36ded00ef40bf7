//! Events that can be told from each other and made again from their names.

use crate::scale::Random;

/// One event: who made it and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) stream: u32,
    pub(crate) number: u64,
}

const LINE_HEAD: &str = r#"{"kind":"Event","apiVersion":"audit.k8s.io/v1","#;

impl Name {
    /// The event as a line of a log file, without its LF: most have less than 2 KiB, some up to 40.
    pub(crate) fn line(self) -> String {
        let Self { stream, number } = self;
        let mut random = Random::of((u64::from(stream) << 40) ^ number);
        let padding = if random.below(64) == 0 {
            random.below(40_000)
        } else {
            random.below(1_200)
        };
        let padding: String = (0..padding)
            .map(|at| char::from(b'a' + u8::try_from((at * 7 + number) % 26).unwrap()))
            .collect();
        let second = number % 60;
        let micros = number % 1_000_000;
        format!(
            "{LINE_HEAD}\"level\":\"Metadata\",\"auditID\":\"{stream}-{number}\",\"stage\":\"ResponseComplete\",\
             \"requestURI\":\"/api/v1/namespaces/default/configmaps/{padding}\",\"verb\":\"get\",\
             \"user\":{{\"username\":\"alice\",\"groups\":[\"system:authenticated\"]}},\"sourceIPs\":[\"127.0.0.1\"],\
             \"userAgent\":\"torture/1\",\"objectRef\":{{\"resource\":\"configmaps\",\"namespace\":\"default\",\
             \"name\":\"{padding}\",\"apiVersion\":\"v1\"}},\"responseStatus\":{{\"metadata\":{{}},\"code\":200}},\
             \"requestReceivedTimestamp\":\"2026-01-02T03:04:{second:02}.{micros:06}Z\",\
             \"stageTimestamp\":\"2026-01-02T03:04:{second:02}.{micros:06}Z\"}}"
        )
    }

    /// The name of the event that a stored line holds, if it is one of these and whole.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let (_, rest) = text.split_once("\"auditID\":\"")?;
        let (id, _) = rest.split_once('"')?;
        let (stream, number) = id.split_once('-')?;
        let name = Self {
            stream: stream.parse().ok()?,
            number: number.parse().ok()?,
        };
        (name.line() == text).then_some(name)
    }
}

/// An EventList as kube-apiserver's webhook posts it: its items have no kind and version.
pub(crate) fn list(names: impl IntoIterator<Item = Name>) -> String {
    let items: Vec<String> = names
        .into_iter()
        .map(|name| format!("{{{}", &name.line()[LINE_HEAD.len()..]))
        .collect();
    list_of(&items)
}

pub(crate) fn list_of(items: &[String]) -> String {
    format!(
        "{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{{}},\"items\":[{}]}}",
        items.join(",")
    )
}
