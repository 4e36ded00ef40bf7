//! What may stand at the cursor of a shell: commands, flags, filters, and the names that a kaudit in reach knows.
//!
//! Shells call this program with `KAUDIT_COMPLETE`, kubectl as `kubectl_complete-kaudit`. Nothing is ever said here:
//! who is completing a word wants words.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, complete};
use clap_complete::env::{CompleteEnv, Shells};
use kaudit_query::{COLUMNS, Completion, CompletionKind};
use serde_json::Value;

use super::server::Server;
use crate::asking::{Parameters, times};
use crate::config::client::{self, ClientFile};
use crate::exit::{Exit, Failure};

/// A shell calls this program with this variable, which names the shell.
const VARIABLE: &str = "KAUDIT_COMPLETE";

/// As which kubectl calls it for the words behind `kubectl kaudit`.
const FOR_KUBECTL: &str = "kubectl_complete-kaudit";

/// A person who pressed a key is kept so long at most for what a server knows.
const PATIENCE: Duration = Duration::from_millis(200);

/// Fields of filters, by the flags that stand for them.
const FIELDS: [(&str, &str); 6] = [
    ("user", "user.username"),
    ("resource", "objectRef.resource"),
    ("namespace", "objectRef.namespace"),
    ("name", "objectRef.name"),
    ("verb", "verb"),
    ("code", "responseStatus.code"),
];

/// Answers a shell or kubectl; `None` when none of them has called.
pub(super) fn answer(command: fn() -> Command, arguments: &[OsString]) -> Option<Exit> {
    let called_as = arguments.first().and_then(|path| Path::new(path).file_name());
    if called_as == Some(OsStr::new(FOR_KUBECTL)) {
        let arguments = arguments.get(1..).unwrap_or_default();
        // What cannot be completed is completed by nothing.
        drop(
            std::io::stdout()
                .lock()
                .write_all(&for_kubectl(command(), arguments)),
        );
        return Some(Exit::Done);
    }
    let shell = std::env::var_os(VARIABLE)?;
    let arguments = as_meant(&shell, arguments);
    let typed = arguments.iter().skip_while(|argument| *argument != "--").skip(1);
    let typed: Vec<OsString> = typed.cloned().collect();
    let completing = CompleteEnv::with_factory(move || completed(command(), &typed)).var(VARIABLE);
    let folder = std::env::current_dir().ok();
    match completing.try_complete(arguments, folder.as_deref()) {
        Ok(true) => Some(Exit::Done),
        Ok(false) => None,
        Err(_) => Some(Exit::Usage),
    }
}

/// The words of a line as the shell will take them: zsh hands them over as they were typed, and fish the one at the cursor,
/// whose quotes may be open still.
fn as_meant(shell: &OsStr, arguments: &[OsString]) -> Vec<OsString> {
    let typed = arguments.iter().position(|argument| argument == "--");
    let first = match (shell.to_str(), typed) {
        (Some("zsh"), Some(typed)) => typed + 1,
        (Some("fish"), Some(typed)) => arguments.len().saturating_sub(1).max(typed + 1),
        _ => arguments.len(),
    };
    let mut meant = arguments.to_vec();
    for word in meant.iter_mut().skip(first) {
        if let Some(text) = word.to_str() {
            *word = without_quotes(text).into();
        }
    }
    meant
}

/// A word of a command line without the quotes and backslashes that keep it together.
fn without_quotes(typed: &str) -> String {
    let mut out = String::with_capacity(typed.len());
    let mut open: Option<char> = None;
    let mut chars = typed.chars().peekable();
    while let Some(char) = chars.next() {
        match (open, char) {
            (None, '\'' | '"') => open = Some(char),
            (Some(quote), char) if quote == char => open = None,
            (None, '\\') => out.extend(chars.next()),
            (Some('"'), '\\') => {
                let escaped = chars.next_if(|next| matches!(next, '"' | '\\' | '$' | '`'));
                out.push(escaped.unwrap_or('\\'));
            }
            (_, char) => out.push(char),
        }
    }
    out
}

/// The script that makes a shell call this program.
pub(super) fn script(shell: clap_complete::Shell) -> Result<Vec<u8>, Failure> {
    let mut script = Vec::new();
    let shells = Shells::builtins();
    let named = shells.completer(&shell.to_string());
    let known = named.ok_or_else(|| Failure::usage(anyhow::anyhow!("there is no completion for {shell}")))?;
    known
        .write_registration(VARIABLE, "kaudit", "kaudit", "kaudit", &mut script)
        .map_err(Failure::usage)?;
    Ok(script)
}

/// What cobra's `__complete` prints: a word on each line, behind a tab what it is, and at last what the shell is to do.
/// Source: spf13/cobra, completions.go: `ShellCompDirectiveNoSpace` is 2, `ShellCompDirectiveNoFileComp` 4.
fn for_kubectl(command: Command, typed: &[OsString]) -> Vec<u8> {
    let mut line = vec![OsString::from("kaudit")];
    line.extend_from_slice(typed);
    if line.len() == 1 {
        line.push(OsString::new());
    }
    let last = line.len() - 1;
    let folder = std::env::current_dir().ok();
    let mut command = completed(command, &line);
    let found = complete(&mut command, line, last, folder.as_deref()).unwrap_or_default();
    let mut out = Vec::new();
    let mut directive = 4;
    for candidate in &found {
        let text = candidate.get_value().to_string_lossy();
        if text.contains(['\n', '\t']) {
            continue;
        }
        if text.ends_with(['/', ':', '=']) {
            directive = 6;
        }
        out.extend_from_slice(text.as_bytes());
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some(help) = help.lines().next() {
            out.extend_from_slice(format!("\t{help}").as_bytes());
        }
        out.push(b'\n');
    }
    out.extend_from_slice(format!(":{directive}\n").as_bytes());
    out
}

/// The command with completers for what it takes; `typed` is the whole line.
fn completed(command: Command, typed: &[OsString]) -> Command {
    with_completers(command, &Arc::new(Source::of(typed)))
}

fn with_completers(command: Command, source: &Arc<Source>) -> Command {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|argument| with_completer(&name, argument, source));
    command.mut_subcommands(|inner| with_completers(inner, source))
}

fn with_completer(command: &str, argument: Arg, source: &Arc<Source>) -> Arg {
    let id = argument.get_id().as_str().to_owned();
    let own = Arc::clone(source);
    let of_field = |field: &'static str| move |typed: &str, source: &Source| source.values(field, typed);
    let is_question = ["query", "tail", "top", "compare", "export"].contains(&command);
    let completer = match (command, id.as_str()) {
        (_, "filter") | ("compare", "with") => completer(own, |typed, source| source.filter(typed)),
        ("top", "field") | ("compare", "fields") => completer(own, |typed, _| fields(typed)),
        ("actor", "user") => completer(own, of_field("user.username")),
        ("history" | "blame", "object") => completer(own, |typed, source| source.objects(typed)),
        ("use-context", "name") => completer(own, |_, _| contexts()),
        (_, "context") if command != "kubeconfig" => completer(own, |_, _| contexts()),
        ("history" | "blame", "namespace") => completer(own, of_field("objectRef.namespace")),
        (_, id) if is_question => {
            let Some((_, field)) = FIELDS.iter().find(|(flag, _)| *flag == id) else {
                return argument;
            };
            completer(own, of_field(field))
        }
        _ => return argument,
    };
    argument.add(completer)
}

/// Candidates that begin as what was typed.
fn completer(
    source: Arc<Source>,
    find: impl Fn(&str, &Source) -> Vec<CompletionCandidate> + Send + Sync + 'static,
) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let Some(typed) = typed.to_str() else {
            return Vec::new();
        };
        let mut found = find(typed, &source);
        found.retain(|candidate| {
            let text = candidate.get_value().to_string_lossy();
            text.get(..typed.len())
                .is_some_and(|begin| begin.eq_ignore_ascii_case(typed))
        });
        found
    })
}

fn candidate(text: impl Into<OsString>, help: &str) -> CompletionCandidate {
    CompletionCandidate::new(text).help((!help.is_empty()).then(|| help.to_owned().into()))
}

fn fields(typed: &str) -> Vec<CompletionCandidate> {
    // Several may stand there, with commas.
    let before = typed
        .rfind(',')
        .map_or("", |at| typed.get(..=at).unwrap_or_default());
    let all = COLUMNS
        .iter()
        .map(|info| candidate(format!("{before}{}", info.name), info.doc));
    all.collect()
}

fn contexts() -> Vec<CompletionCandidate> {
    let file = client::usual_path(|name| std::env::var_os(name)).map(|path| ClientFile::read(&path));
    let Some(Ok(Some(file))) = file else {
        return Vec::new();
    };
    let contexts = file.config.contexts.iter();
    contexts
        .map(|context| candidate(&context.value.name, &context.value.server))
        .collect()
}

/// Where names come from.
#[derive(Debug)]
enum Source {
    /// The line names files; they are not read for a word.
    Files,
    Server(Server),
}

impl Source {
    /// The one that the line is about.
    fn of(typed: &[OsString]) -> Self {
        let is_from =
            |argument: &OsString| argument == "--from" || argument.to_string_lossy().starts_with("--from=");
        if typed.iter().any(is_from) {
            return Self::Files;
        }
        Self::Server(server(typed).unwrap_or_default())
    }

    /// What may stand in a filter.
    fn filter(&self, typed: &str) -> Vec<CompletionCandidate> {
        // A flag; a filter that begins with a sign stands behind `--`.
        if typed.starts_with('-') {
            return Vec::new();
        }
        if let Some(found) = self.suggested(typed) {
            return found;
        }
        let found = kaudit_query::complete(typed, typed.len());
        let before = typed.get(..found.replaces.start).unwrap_or_default();
        let one = |item: &Completion| {
            let is_keyword = item.kind == CompletionKind::Keyword;
            candidate(joined(before, &item.text, is_keyword), item.doc)
        };
        found.items.iter().map(one).collect()
    }

    /// The values of a field, for a flag that stands for it.
    fn values(&self, field: &str, typed: &str) -> Vec<CompletionCandidate> {
        // Several may stand there, with commas.
        let is_list = matches!(field, "verb" | "responseStatus.code");
        let at = typed.rfind(',').filter(|_| is_list).map_or(0, |at| at + 1);
        let (before, begun) = typed.split_at_checked(at).unwrap_or(("", typed));
        let begin = format!("{field}: ");
        let begun = if begun.is_empty() {
            String::new()
        } else {
            times::word(begun)
        };
        let found = self.filter(&format!("{begin}{begun}"));
        let plain = found.iter().filter_map(|found| {
            let text = found.get_value().to_str()?.strip_prefix(&begin)?;
            let text = unquoted(text);
            (text != "*")
                .then(|| CompletionCandidate::new(format!("{before}{text}")).help(found.get_help().cloned()))
        });
        plain.collect()
    }

    /// `TYPE/NAME`.
    fn objects(&self, typed: &str) -> Vec<CompletionCandidate> {
        let with = |found: Vec<CompletionCandidate>, before: &str, behind: &str| {
            let one = |found: CompletionCandidate| {
                let text = format!("{before}{}{behind}", found.get_value().to_string_lossy());
                CompletionCandidate::new(text).help(found.get_help().cloned())
            };
            found.into_iter().map(one).collect()
        };
        match typed.split_once('/') {
            None => with(self.values("objectRef.resource", typed), "", "/"),
            Some((kind, name)) => with(self.values("objectRef.name", name), &format!("{kind}/"), ""),
        }
    }

    /// What a server suggests for a filter; `None` when none answers in time.
    fn suggested(&self, typed: &str) -> Option<Vec<CompletionCandidate>> {
        let Self::Server(server) = self else {
            return None;
        };
        let parameters = Parameters::default().with("q", typed);
        let remote = server.remote().ok()?;
        let found = remote.document_within(PATIENCE, "/api/v1/suggest", &parameters)?;
        let from = usize::try_from(found.get("from")?.as_u64()?).ok()?;
        let before = typed.get(..from)?;
        let text = |item: &Value, name: &str| Some(item.get(name)?.as_str()?.to_owned());
        let one = |item: &Value| {
            let help = text(item, "help").unwrap_or_default();
            let is_keyword = text(item, "kind").is_some_and(|kind| kind == "keyword");
            Some(candidate(joined(before, &text(item, "text")?, is_keyword), &help))
        };
        Some(found.get("items")?.as_array()?.iter().filter_map(one).collect())
    }
}

/// A filter with a word more; a keyword stands by itself.
fn joined(before: &str, text: &str, is_keyword: bool) -> String {
    let is_apart = before.is_empty() || before.ends_with(|char: char| char.is_whitespace() || char == '(');
    let starts_word = text.starts_with(|char: char| char.is_alphabetic());
    let blank = if is_keyword && starts_word && !is_apart {
        " "
    } else {
        ""
    };
    format!("{before}{blank}{text}")
}

/// The flags of a line that say which server is meant, whatever else stands there.
fn server(typed: &[OsString]) -> Option<Server> {
    let flags = Server::augment_args(Command::new("kaudit").no_binary_name(true));
    let names: Vec<String> = flags
        .get_arguments()
        .filter_map(|argument| Some(format!("--{}", argument.get_long()?)))
        .collect();
    let mut own = Vec::new();
    let mut words = typed.iter().map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some((name, _)) if names.iter().any(|known| known == name) => own.push(word.into_owned()),
            None if names.contains(&word.clone().into_owned()) => {
                let value = words.next()?;
                own.push(format!("{word}={value}"));
            }
            _ => {}
        }
    }
    let matches: ArgMatches = flags.try_get_matches_from(own).ok()?;
    Server::from_arg_matches(&matches).ok()
}

/// A word of a filter as it is without its quotes.
fn unquoted(text: &str) -> String {
    let Some(inner) = text
        .strip_prefix('"')
        .map(|text| text.strip_suffix('"').unwrap_or(text))
    else {
        return text.to_owned();
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.extend(chars.next()),
            char => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        let line: Vec<OsString> = ["kaudit"].iter().chain(line).map(OsString::from).collect();
        let last = line.len() - 1;
        let mut command = completed(super::super::Cli::command(), &line);
        let found = complete(&mut command, line, last, None).unwrap();
        let words = found
            .iter()
            .map(|found| found.get_value().to_string_lossy().into_owned());
        words.collect()
    }

    #[test]
    fn commands_flags_and_filters_are_completed_without_a_server() {
        // Files are named, so that no server is asked.
        for (line, expected) in [
            (&["que"][..], "query"),
            (&["query", "--from", "x", "--lim"], "--limit"),
            (&["query", "--from", "x", "-o", "x", "verb: del"], "verb: delete"),
            (&["query", "--from=x", "user.usern"], "user.username"),
            (
                &["query", "--from=x", "verb: get and obj"],
                "verb: get and objectRef.resource",
            ),
            (&["query", "--from=x", "--verb", "get,wa"], "get,watch"),
            (&["top", "--from=x", "user.usern"], "user.username"),
            (
                &["compare", "--from=x", "--fields", "verb,user.usern"],
                "verb,user.username",
            ),
            (
                &["compare", "--from=x", "--with", "stage: Resp"],
                "stage: ResponseComplete",
            ),
            (&["query", "--from=x", "xyzzy"], "xyzzy and"),
            (&["query", "--from=x", "(verb: get "], "(verb: get and"),
            (&["completion", "z"], "zsh"),
        ] {
            let words = words(line);
            assert!(words.iter().any(|word| word == expected), "{line:?}: {words:?}");
        }
    }

    #[test]
    fn quotes_of_a_shell_are_no_part_of_a_word_even_if_they_are_open() {
        for (typed, meant) in [
            ("plain", "plain"),
            ("'verb: del", "verb: del"),
            ("\"verb: \\\"del", "verb: \"del"),
            ("'name: \"a\\b\"'", "name: \"a\\b\""),
            ("verb:\\ del", "verb: del"),
            ("--user='a b'", "--user=a b"),
        ] {
            assert_eq!(without_quotes(typed), meant, "{typed}");
        }
        let line = |words: &[&str]| -> Vec<OsString> { words.iter().map(OsString::from).collect() };
        let typed = line(&["kaudit", "--", "kaudit", "'query'", "'ve"]);
        for (shell, meant) in [
            ("zsh", ["query", "ve"]),
            ("fish", ["'query'", "ve"]),
            ("bash", ["'query'", "'ve"]),
        ] {
            let found = as_meant(OsStr::new(shell), &typed);
            assert_eq!(found[3..], line(&meant), "{shell}");
        }
    }

    #[test]
    fn a_flag_is_no_filter() {
        assert_eq!(words(&["query", "--from=x", "--fr"]), ["--from"]);
    }

    #[test]
    fn kubectl_is_told_in_cobras_words() {
        let typed: Vec<OsString> = ["query", "--from=x", "verb: del"].map(OsString::from).into();
        let said = String::from_utf8(for_kubectl(super::super::Cli::command(), &typed)).unwrap();
        let mut lines = said.lines();
        assert!(
            lines
                .next()
                .is_some_and(|line| line.split('\t').next() == Some("verb: delete")),
            "{said}"
        );
        assert_eq!(said.lines().last(), Some(":4"));
        let said = String::from_utf8(for_kubectl(super::super::Cli::command(), &[])).unwrap();
        assert!(
            said.lines()
                .any(|line| line.starts_with("query\tShow the events")),
            "{said}"
        );
    }

    #[test]
    fn the_server_of_the_line_is_the_one_that_is_asked() {
        let typed = [
            "kaudit",
            "query",
            "--token-file",
            "t",
            "-u",
            "--context=prod",
            "verb: ",
        ]
        .map(OsString::from);
        let server = server(&typed).unwrap();
        assert_eq!(server.arguments(), "--context prod --token-file t");
        assert!(matches!(
            Source::of(&["--from".into(), "x".into()]),
            Source::Files
        ));
    }

    #[test]
    fn quotes_of_filters_go() {
        assert_eq!(unquoted("alice"), "alice");
        assert_eq!(unquoted(r#""a b\"c""#), "a b\"c");
    }

    #[test]
    fn every_shell_has_a_script_that_calls_this_program() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(script(*shell).unwrap()).unwrap();
            assert!(
                script.contains(VARIABLE) && script.contains("kaudit"),
                "{shell}: {script}"
            );
        }
    }
}
