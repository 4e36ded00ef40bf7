//! The programs that a sandbox's containers have.

use serde_json::Value;

use crate::object::{items, text};

/// Bytes of a line of input.
const LINE_LIMIT: usize = 64 * 1024;

/// What a program wrote, and its exit code once it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) exit: Option<i32>,
}

/// A program in a container.
#[derive(Clone, Debug)]
pub(super) struct Shell {
    command: Vec<String>,
    environment: Vec<(String, String)>,
    host: String,
    mode: Mode,
    line: Vec<u8>,
    tty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Ends without reading.
    Once,
    /// Gives back its input.
    Copy,
    /// Reads commands.
    Interactive,
}

impl Shell {
    pub(super) fn new(command: Vec<String>, pod: &Value, container: &str) -> Self {
        let host = text(pod, "/metadata/name").to_owned();
        let mut environment = vec![
            (
                "PATH".to_owned(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
            ("HOSTNAME".to_owned(), host.clone()),
            ("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()),
            ("HOME".to_owned(), "/root".to_owned()),
        ];
        let own = items(pod, "/spec/containers").find(|found| text(found, "/name") == container);
        if let Some(own) = own {
            environment.extend(
                items(own, "/env")
                    .map(|entry| (text(entry, "/name").to_owned(), text(entry, "/value").to_owned())),
            );
        }
        Self {
            command,
            environment,
            host,
            mode: Mode::Once,
            line: Vec::new(),
            tty: false,
        }
    }

    /// Starts the program.
    pub(super) fn start(&mut self, stdin: bool, tty: bool) -> Output {
        self.tty = tty;
        let words: Vec<String> = self.command.clone();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["cat"] if stdin => {
                self.mode = Mode::Copy;
                Output::default()
            }
            [shell] if is_shell(shell) && stdin => {
                self.mode = Mode::Interactive;
                Output {
                    stdout: self.prompt(),
                    ..Output::default()
                }
            }
            words => self.run(words),
        }
    }

    /// Takes a piece of standard input.
    pub(super) fn input(&mut self, data: &[u8]) -> Output {
        match self.mode {
            Mode::Once => Output {
                exit: Some(0),
                ..Output::default()
            },
            Mode::Copy if self.tty && data.contains(&4) => self.end_of_input(),
            Mode::Copy => Output {
                stdout: data.to_vec(),
                ..Output::default()
            },
            Mode::Interactive => self.interpret(data),
        }
    }

    pub(super) fn end_of_input(&mut self) -> Output {
        let mut output = Output {
            exit: Some(0),
            ..Output::default()
        };
        if self.mode == Mode::Interactive && !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            let ran = self.run_line(&String::from_utf8_lossy(&line));
            output = Output {
                exit: Some(ran.exit.unwrap_or(0)),
                ..ran
            };
        }
        output
    }

    fn prompt(&self) -> Vec<u8> {
        if self.tty { b"/ # ".to_vec() } else { Vec::new() }
    }

    fn interpret(&mut self, data: &[u8]) -> Output {
        let mut all = Output::default();
        for byte in data {
            match byte {
                4 if self.tty => return Output { exit: Some(0), ..all },
                b'\r' | b'\n' => {
                    if self.tty {
                        all.stdout.extend_from_slice(b"\r\n");
                    }
                    let line = std::mem::take(&mut self.line);
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim();
                    if line == "exit" || line.starts_with("exit ") {
                        all.exit = Some(
                            line.strip_prefix("exit ")
                                .and_then(|code| code.trim().parse().ok())
                                .unwrap_or(0),
                        );
                        return all;
                    }
                    let ran = self.run_line(line);
                    all.stdout.extend(self.terminal(ran.stdout));
                    all.stderr.extend(self.terminal(ran.stderr));
                    all.stdout.extend(self.prompt());
                }
                _ if self.line.len() >= LINE_LIMIT => {
                    all.stderr.extend_from_slice(b"sh: line too long\n");
                    return Output { exit: Some(2), ..all };
                }
                other => {
                    if self.tty {
                        all.stdout.push(*other);
                    }
                    self.line.push(*other);
                }
            }
        }
        all
    }

    /// A terminal needs a carriage return before each line feed.
    fn terminal(&self, text: Vec<u8>) -> Vec<u8> {
        if !self.tty {
            return text;
        }
        let mut out = Vec::with_capacity(text.len());
        for byte in text {
            if byte == b'\n' {
                out.push(b'\r');
            }
            out.push(byte);
        }
        out
    }

    /// Commands separated by `;` and `&&`; no quoting but whole words in one kind of quotes.
    fn run_line(&self, line: &str) -> Output {
        let mut all = Output {
            exit: Some(0),
            ..Output::default()
        };
        for part in line.split(';').flat_map(|part| part.split("&&")) {
            let (part, to_stderr) = match part.trim().strip_suffix(">&2") {
                Some(part) => (part, true),
                None => (part, false),
            };
            let words: Vec<&str> = part
                .split_whitespace()
                .map(|word| word.trim_matches(|c| c == '"' || c == '\''))
                .collect();
            if words.is_empty() {
                continue;
            }
            let ran = self.run(&words);
            if to_stderr {
                &mut all.stderr
            } else {
                &mut all.stdout
            }
            .extend(ran.stdout);
            all.stderr.extend(ran.stderr);
            all.exit = ran.exit;
            if words.first() == Some(&"exit") {
                break;
            }
        }
        all
    }

    fn run(&self, words: &[&str]) -> Output {
        let done = |stdout: String| Output {
            stdout: stdout.into_bytes(),
            exit: Some(0),
            ..Output::default()
        };
        match words {
            [shell, "-c", line] if is_shell(shell) => self.run_line(line),
            ["echo", words @ ..] => done(format!("{}\n", words.join(" "))),
            ["env" | "printenv"] => done(
                self.environment
                    .iter()
                    .map(|(key, value)| format!("{key}={value}\n"))
                    .collect(),
            ),
            ["hostname"] => done(format!("{}\n", self.host)),
            ["whoami"] => done("root\n".to_owned()),
            ["id"] => done("uid=0(root) gid=0(root) groups=0(root)\n".to_owned()),
            ["pwd"] => done("/\n".to_owned()),
            ["ls", ..] => done("bin\ndev\netc\nhome\nproc\nroot\nsys\ntmp\nusr\nvar\n".to_owned()),
            ["true" | "cat"] => done(String::new()),
            ["cat", "/etc/hostname"] => done(format!("{}\n", self.host)),
            ["cat", path, ..] => Output {
                stderr: format!("cat: {path}: No such file or directory\n").into_bytes(),
                exit: Some(1),
                ..Output::default()
            },
            ["false"] => Output {
                exit: Some(1),
                ..Output::default()
            },
            ["exit", code] => Output {
                exit: Some(code.parse().unwrap_or(2)),
                ..Output::default()
            },
            ["exit"] => done(String::new()),
            [other, ..] => Output {
                stderr: format!("sh: {other}: not found\n").into_bytes(),
                exit: Some(127),
                ..Output::default()
            },
            [] => done(String::new()),
        }
    }
}

fn is_shell(name: &str) -> bool {
    matches!(name.rsplit('/').next(), Some("sh" | "bash" | "ash"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shell(command: &[&str]) -> Shell {
        let pod = json!({
            "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "b"}]}]},
        });
        Shell::new(command.iter().map(|word| (*word).to_owned()).collect(), &pod, "c")
    }

    #[track_caller]
    fn check(command: &[&str], stdout: &str, stderr: &str, exit: i32) {
        let output = shell(command).start(false, false);
        assert_eq!(
            (
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr),
                output.exit
            ),
            (stdout.into(), stderr.into(), Some(exit))
        );
    }

    #[test]
    fn programs_write_and_end() {
        check(&["echo", "a", "b"], "a b\n", "", 0);
        check(
            &["sh", "-c", "echo out; echo err >&2; exit 3"],
            "out\n",
            "err\n",
            3,
        );
        check(&["hostname"], "web\n", "", 0);
        check(&["nope"], "", "sh: nope: not found\n", 127);
        check(&["false"], "", "", 1);
        assert!(
            String::from_utf8(shell(&["env"]).start(false, false).stdout)
                .unwrap()
                .contains("\nA=b\n")
        );
    }

    #[test]
    fn cat_gives_back_its_input() {
        let mut shell = shell(&["cat"]);
        assert_eq!(shell.start(true, false), Output::default());
        assert_eq!(shell.input(b"x").stdout, b"x");
        assert_eq!(shell.end_of_input().exit, Some(0));
    }

    #[test]
    fn a_shell_reads_commands() {
        let mut shell = shell(&["sh"]);
        assert_eq!(shell.start(true, false).exit, None);
        assert_eq!(shell.input(b"echo a\nec").stdout, b"a\n");
        let output = shell.input(b"ho b\nexit 4\n");
        assert_eq!((output.stdout.as_slice(), output.exit), (&b"b\n"[..], Some(4)));
    }
}
