//! Programs that run the rest of their arguments, and where in these the command begins.

use crate::text::basename;

/// Most commands that are looked at: one for each wrapper, and some more where an operand may be missing.
const COMMANDS_MAX: usize = 64;

/// Words of the shell after which a command begins.
const KEYWORDS: &[&str] = &["!", "do", "elif", "else", "if", "then", "until", "while", "{"];

/// What comes before the command.
struct Wrapper {
    name: &'static str,
    /// Letters of its options that take a value.
    letters: &'static str,
    /// Names of its long options that take one as a word of its own.
    names: &'static [&'static str],
    /// Most operands.
    operands: usize,
}

const fn wrapper(
    name: &'static str,
    letters: &'static str,
    names: &'static [&'static str],
    operands: usize,
) -> Wrapper {
    Wrapper { name, letters, names, operands }
}

/// **Source**: the manuals of coreutils, util-linux, findutils, sudo, opendoas, tini, dumb-init and GNU time.
const WRAPPERS: &[Wrapper] = &[
    wrapper("busybox", "", &[], 0),
    wrapper("catatonit", "", &[], 0),
    wrapper("chrt", "TPD", &["sched-runtime", "sched-period", "sched-deadline"], 1),
    wrapper("command", "", &[], 0),
    wrapper("doas", "Cau", &[], 0),
    wrapper("dumb-init", "r", &["rewrite"], 0),
    wrapper("env", "uCa", &["unset", "chdir", "argv0"], 0),
    wrapper("exec", "a", &[], 0),
    wrapper("flock", "wE", &["timeout", "wait", "conflict-exit-code"], 1),
    wrapper("gosu", "", &[], 1),
    wrapper("ionice", "cnpPu", &["class", "classdata", "pid", "pgid", "uid"], 0),
    wrapper("nice", "n", &["adjustment"], 0),
    wrapper("nohup", "", &[], 0),
    wrapper("prlimit", "po", &["pid", "output"], 0),
    wrapper("runuser", "ugGsw", &["user", "group", "supp-group", "shell", "whitelist-environment"], 1),
    wrapper("setarch", "", &["uname-2.6"], 1),
    wrapper(
        "setpriv",
        "",
        &[
            "ambient-caps",
            "apparmor-profile",
            "bounding-set",
            "egid",
            "euid",
            "groups",
            "inh-caps",
            "landlock-access",
            "landlock-rule",
            "pdeathsig",
            "ptracer",
            "regid",
            "reuid",
            "rgid",
            "ruid",
            "seccomp-filter",
            "securebits",
            "selinux-label",
        ],
        0,
    ),
    wrapper("setsid", "", &[], 0),
    wrapper("stdbuf", "ioe", &["input", "output", "error"], 0),
    wrapper("su", "gGsw", &["group", "supp-group", "shell", "whitelist-environment"], 2),
    wrapper("su-exec", "", &[], 1),
    wrapper(
        "sudo",
        "CDRTUghprtu",
        &[
            "chdir",
            "chroot",
            "close-from",
            "command-timeout",
            "group",
            "host",
            "prompt",
            "role",
            "type",
            "user",
        ],
        0,
    ),
    wrapper("taskset", "p", &["pid"], 1),
    wrapper("time", "fo", &["format", "output"], 0),
    wrapper("timeout", "sk", &["signal", "kill-after"], 1),
    wrapper("tini", "pe", &[], 0),
    wrapper("toybox", "", &[], 0),
    wrapper(
        "xargs",
        "adEILnPs",
        &["arg-file", "delimiter", "max-lines", "max-args", "max-procs", "max-chars", "process-slot-var"],
        0,
    ),
];

/// A shell in a script whose quotes are gone: the words of its own script follow.
const SHELL: Wrapper = wrapper("sh", "oO", &["rcfile", "init-file"], 0);

/// The command that these words are, and those that it runs by wrappers, each with its arguments. In a script, where quotes
/// are gone, the `shells` are wrappers, too.
pub(super) fn commands<'a>(words: &[&'a str], shells: &[&str]) -> Vec<Vec<&'a str>> {
    let mut waiting = vec![words.to_vec()];
    let mut found: Vec<Vec<&str>> = Vec::new();
    while let Some(words) = waiting.pop()
        && found.len() < COMMANDS_MAX
    {
        let command = without_prefix(&words);
        let Some((program, arguments)) = command.split_first() else { continue };
        let name = basename(program);
        if let Some(wrapper) = WRAPPERS.iter().find(|wrapper| wrapper.name == name) {
            waiting.extend(wrapper.commands(arguments));
        } else if shells.contains(&name) {
            waiting.extend(SHELL.commands(arguments));
        }
        found.push(command.to_vec());
    }
    found
}

/// The words from the first one on that is neither an assignment nor a word of the shell.
fn without_prefix<'a, 'w>(words: &'w [&'a str]) -> &'w [&'a str] {
    let is_prefix = |word: &&str| is_assignment(word) || KEYWORDS.contains(word);
    let start = words.iter().position(|word| !is_prefix(word)).unwrap_or(words.len());
    &words[start..]
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

impl Wrapper {
    /// What may be the command: behind the options, with any number of the operands, since some can be left out.
    fn commands<'a>(&self, arguments: &[&'a str]) -> Vec<Vec<&'a str>> {
        let mut found = Vec::new();
        let mut rest = arguments;
        for _ in 0..=self.operands {
            let (split, after) = self.skip_options(rest);
            if let Some(split) = split {
                found.push([words_of(split), after.to_vec()].concat());
            } else if !after.is_empty() {
                found.push(after.to_vec());
            }
            rest = after.get(1..).unwrap_or_default();
        }
        found
    }

    /// Skips options and their values; with the words that `env -S` is given in one.
    fn skip_options<'a, 'w>(&self, words: &'w [&'a str]) -> (Option<&'a str>, &'w [&'a str]) {
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            if let Some(long) = word.strip_prefix("--") {
                if self.name == "env"
                    && let Some(joined) = long.strip_prefix("split-string=")
                {
                    return (Some(joined), after);
                }
                if self.name == "env" && long == "split-string" {
                    return (after.first().copied(), after.get(1..).unwrap_or_default());
                }
                let has_value = self.names.contains(&long);
                rest = after.get(usize::from(has_value)..).unwrap_or_default();
                if long.is_empty() {
                    return (None, rest);
                }
            } else if let Some(letters) = word.strip_prefix('-') {
                if self.name == "env"
                    && let Some((_, joined)) = letters.split_once('S')
                {
                    return match joined {
                        "" => (after.first().copied(), after.get(1..).unwrap_or_default()),
                        joined => (Some(joined), after),
                    };
                }
                // The rest of the word is the value, unless there is none.
                let has_value =
                    letters.find(|letter| self.letters.contains(letter)) == letters.len().checked_sub(1);
                rest = after.get(usize::from(has_value && !letters.is_empty())..).unwrap_or_default();
            } else {
                break;
            }
        }
        (None, rest)
    }
}

/// Words of a text, its quotes left out.
pub(super) fn words_of(text: &str) -> Vec<&str> {
    let is_between = |letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '\\');
    text.split(is_between).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_by(words: &[&str]) -> Vec<String> {
        let found = commands(words, &[]);
        found.iter().skip(1).map(|command| command.join(" ")).collect()
    }

    #[test]
    fn the_command_is_behind_options_and_operands() {
        for (words, expected) in [
            (&["nice", "-n", "5", "x", "-n"][..], &["x -n"][..]),
            (&["nice", "-n5", "x"], &["x"]),
            (&["nice", "--adjustment", "5", "x"], &["x"]),
            (&["env", "-i", "-u", "echo", "A=b", "x", "y"], &["x y"]),
            (&["env", "-", "x"], &["x"]),
            (&["env", "-S", "x -y 'z'", "w"], &["x -y z w"]),
            (&["env", "-vSx y"], &["x y"]),
            (&["env", "--split-string=x y", "z"], &["x y z"]),
            (&["env", "--split-string", "A=b x"], &["x"]),
            (&["tini", "-g", "--", "x"], &["x"]),
            (&["timeout", "-s", "KILL", "5", "x", "y"], &["x y", "5 x y"]),
            (&["flock", "-w", "3", "/f", "-x", "x"], &["x", "/f -x x"]),
            (&["sudo", "-u", "ann", "nice", "x"], &["nice x", "x"]),
            (&["env"], &[]),
            (&["env", "-u"], &[]),
            (&["env", "-S"], &[]),
        ] {
            assert_eq!(run_by(words), expected, "{words:?}");
        }
    }

    #[test]
    fn what_runs_nothing_is_no_wrapper() {
        assert!(run_by(&["echo", "nice", "x"]).is_empty());
        assert!(
            run_by(&["timeout", "5", "echo", "nice", "x"]).iter().all(|command| command.contains("echo"))
        );
    }

    #[test]
    fn the_number_of_commands_is_bounded() {
        let words = vec!["su"; 10_000];
        assert_eq!(commands(&words, &[]).len(), COMMANDS_MAX);
    }
}
