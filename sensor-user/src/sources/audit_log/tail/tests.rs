use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;

/// A log in a directory of its own, and whoever reads it.
struct Log {
    directory: tempfile::TempDir,
    tail: Tail,
    read: Vec<String>,
    position: Option<Position>,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let tail = Tail::new(directory.path().join("audit.log"), None);
        Self { directory, tail, read: Vec::new(), position: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, text: &str) {
        self.write_to("audit.log", text);
    }

    fn write_to(&self, name: &str, text: &str) {
        let mut file =
            OpenOptions::new().append(true).create(true).open(self.path(name)).expect("it can be written");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn rename(&self, to: &str) {
        fs::rename(self.path("audit.log"), self.path(to)).expect("renamed");
        // Times of files have the resolution of the kernel's tick.
        std::thread::sleep(std::time::Duration::from_millis(11));
    }

    /// Reads until there is nothing more, and returns what it ended with.
    fn drain(&mut self) -> Step {
        loop {
            match self.tail.step().expect("it can be read") {
                Step::Lines(lines) => {
                    let text = String::from_utf8(lines.bytes).expect("UTF-8");
                    self.read.extend(text.lines().map(str::to_owned));
                    self.position = Some(lines.after);
                }
                Step::Again => {}
                end @ (Step::Idle | Step::Absent) => return end,
            }
        }
    }

    /// Forgets everything but the position.
    fn restart(&mut self) {
        self.tail = Tail::new(self.path("audit.log"), self.position.clone());
    }

    #[track_caller]
    fn check(&mut self, expected: &[&str]) {
        self.drain();
        assert_eq!(self.read, expected);
        assert_eq!(self.tail.lost(), Lost::default());
        self.read.clear();
    }
}

#[test]
fn lines_come_when_they_are_whole() {
    let mut log = Log::new();
    assert_eq!(log.drain(), Step::Absent);
    log.write("a\nb");
    assert_eq!(log.drain(), Step::Idle);
    log.check(&["a"]);
    assert_eq!(log.tail.behind().expect("it is there"), 1);
    log.write("c\n");
    log.check(&["bc"]);
    assert_eq!(log.tail.behind().expect("it is there"), 0);
}

#[test]
fn what_is_written_before_and_after_a_rotation_is_read_once() {
    let mut log = Log::new();
    log.write("a\n");
    log.check(&["a"]);
    log.write("b\n");
    log.rename("audit-2026-11-23T11-00-00.000.log");
    log.check(&["b"]);
    assert_eq!(log.drain(), Step::Absent, "the new one is not there yet");
    log.write("");
    log.write_to("audit-2026-11-23T11-00-00.000.log", "c\n");
    log.check(&["c"]);
    log.write("d\n");
    log.check(&["d"]);
}

#[test]
fn several_rotations_between_two_looks_lose_nothing() {
    for names in
        [["audit.log.3", "audit.log.2", "audit.log.1"], ["audit-1.log", "audit-2.log", "audit-3.log"]]
    {
        let mut log = Log::new();
        log.write("a\n");
        log.check(&["a"]);
        for (name, line) in names.into_iter().zip(["b\n", "c\n", "d\n"]) {
            log.write(line);
            log.rename(name);
        }
        log.write("e\n");
        log.check(&["b", "c", "d", "e"]);
    }
}

#[test]
fn a_restart_goes_on_where_the_last_run_ended_whatever_was_rotated_meanwhile() {
    let mut log = Log::new();
    log.write("a\nb\npart");
    log.check(&["a", "b"]);
    log.restart();
    log.write("ial\nc\n");
    log.check(&["partial", "c"]);
    log.rename("audit.log.2");
    log.write("d\n");
    log.rename("audit.log.1");
    log.write("e\n");
    log.restart();
    log.check(&["d", "e"]);
    log.restart();
    log.check(&[]);
}

#[test]
fn a_log_that_was_copied_and_emptied_is_read_on_in_the_copy() {
    let mut log = Log::new();
    log.write("a\n");
    log.check(&["a"]);
    log.write("b\n");
    fs::copy(log.path("audit.log"), log.path("audit.log.1")).expect("copied");
    OpenOptions::new().write(true).truncate(true).open(log.path("audit.log")).expect("emptied");
    log.check(&["b"]);
    log.write("c\n");
    log.check(&["c"]);
    log.write("d\n");
    fs::copy(log.path("audit.log"), log.path("audit.log.2")).expect("copied");
    fs::write(log.path("audit.log"), "something longer than what was there\n").expect("filled anew");
    log.check(&["d", "something longer than what was there"]);
}

#[test]
fn a_log_that_was_emptied_without_a_copy_is_read_from_its_beginning_and_said_to_lack_something() {
    let mut log = Log::new();
    log.write("a\nb\n");
    log.check(&["a", "b"]);
    fs::write(log.path("audit.log"), "c\n").expect("emptied and filled");
    log.drain();
    assert_eq!(log.read, ["c"]);
    assert_eq!(log.tail.lost(), Lost { oversize: 0, gaps: 1 });
    fs::write(log.path("audit.log"), "d\ne\nf\n").expect("emptied and filled beyond what was read");
    log.drain();
    assert_eq!(log.read, ["c", "d", "e", "f"]);
    assert_eq!(log.tail.lost().gaps, 2);
}

#[test]
fn another_file_in_the_place_of_the_one_read_last_is_read_whole_and_told() {
    let mut log = Log::new();
    log.write("a\n");
    log.check(&["a"]);
    fs::remove_file(log.path("audit.log")).expect("removed");
    // It may well get the same number.
    log.write("b\nc\n");
    log.restart();
    log.drain();
    assert_eq!(log.read, ["b", "c"]);
    assert_eq!(log.tail.lost().gaps, 1);
}

#[test]
fn packed_files_that_were_not_read_are_told() {
    let mut log = Log::new();
    log.write("a\n");
    log.check(&["a"]);
    log.rename("audit-1.log");
    log.write("b\n");
    fs::remove_file(log.path("audit.log")).expect("removed");
    log.write_to("audit-2.log.gz", "packed");
    log.write("c\n");
    log.drain();
    assert_eq!((&*log.read, log.tail.lost().gaps), (&["c".to_owned()][..], 1));
}

#[test]
fn the_last_line_of_a_rotated_file_may_lack_its_newline() {
    let mut log = Log::new();
    log.write("a\nb");
    log.check(&["a"]);
    log.rename("audit.log.1");
    log.write("c\n");
    log.check(&["b", "c"]);
}

#[test]
fn a_line_that_is_too_long_is_counted_and_the_next_one_whole() {
    let mut log = Log::new();
    let long = "x".repeat(EVENT_MAX + 1);
    let longest = "y".repeat(EVENT_MAX);
    log.write(&format!("a\n{long}\nb\n{longest}\n{long}{long}\nc\n"));
    log.drain();
    assert_eq!(log.read, ["a", "b", &longest, "c"]);
    assert_eq!(log.tail.lost(), Lost { oversize: 2, gaps: 0 });
    log.read.clear();
    log.restart();
    log.check(&[]);
    log.write(&format!("{long}\nd\n"));
    log.drain();
    assert_eq!(log.read, ["d"], "what comes with its end is not left lying");
}

#[test]
fn what_is_no_file_is_an_error_and_does_not_hang() {
    let mut log = Log::new();
    fs::create_dir(log.path("audit.log")).expect("a directory");
    assert_eq!(log.drain(), Step::Absent);
    let reading = siblings::open(&log.path("audit.log")).expect_err("it is no file");
    assert_eq!(reading.to_string(), "it is no file");
}

#[test]
fn nothing_is_lost_or_told_twice_however_writes_rotations_and_restarts_fall() {
    // A generator without a state to share: each case is told by its number.
    let next = |state: &mut u64| {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    };
    for case in 1..40_u64 {
        let mut log = Log::new();
        let mut state = case.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut written = Vec::new();
        let mut rotations = 0;
        for step in 0..60 {
            match next(&mut state) % 10 {
                0 => {
                    if log.path("audit.log").exists() {
                        rotations += 1;
                        log.rename(&format!("audit-{rotations:03}.log"));
                    }
                }
                1 => log.restart(),
                2..5 => {
                    log.drain();
                }
                _ => {
                    let line = format!("{case}-{step}-{}", "z".repeat((next(&mut state) % 90) as usize));
                    log.write(&format!("{line}\n"));
                    written.push(line);
                }
            }
        }
        log.write("end\n");
        written.push("end".to_owned());
        log.drain();
        // A restart before anything was read begins with the log, not with what it was rotated into.
        let first = written.iter().position(|line| Some(line) == log.read.first()).expect("it was written");
        assert_eq!(log.read, written[first..], "case {case}");
        assert_eq!(log.tail.lost(), Lost::default(), "case {case}");
    }
}
