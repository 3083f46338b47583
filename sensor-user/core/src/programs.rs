//! Which files are clients of container management, whatever they are called.
//!
//! Owns the answers by file and time of its last change. Reading files is the shell's business; nothing here waits for
//! it: what is not known is asked for once, and a program is what its name says until the answer comes.

use std::sync::Arc;

use crate::bounded::Bounded;
use crate::ids::FileKey;

/// Most files of which the answer is kept.
pub(crate) const PROGRAMS_MAX: usize = 8192;

/// Contents of a file: a file that is written to or replaced has others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Contents {
    /// The file.
    pub file: FileKey,
    /// Time of the last change of its inode, nanoseconds since 1970.
    pub changed_ns: u64,
}

/// What is known of contents.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// The answer is on its way.
    Asked,
    /// The client that it is, if it is one.
    Client(Option<Arc<str>>),
    /// Each process that runs it may be something else.
    Loader,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Programs {
    table: Bounded<Contents, Known>,
    unread: u64,
}

impl Programs {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { table: Bounded::new(capacity), unread: 0 }
    }

    /// The client that a file is, as far as is known.
    pub(crate) fn client(&mut self, contents: &Contents) -> Option<Arc<str>> {
        match self.table.get_mut(contents)? {
            Known::Client(client) => client.clone(),
            Known::Asked | Known::Loader => None,
        }
    }

    /// Whether somebody should look at a file; if so, it counts as asked for.
    pub(crate) fn wants(&mut self, contents: Contents) -> bool {
        match self.table.peek(&contents) {
            None => {
                self.table.insert(contents, Known::Asked);
                true
            }
            Some(known) => *known == Known::Loader,
        }
    }

    /// Takes that a file is a dynamic loader; returns whether that is news.
    pub(crate) fn learn_loader(&mut self, contents: Contents) -> bool {
        let is_news = self.table.peek(&contents) != Some(&Known::Loader);
        self.table.insert(contents, Known::Loader);
        is_news
    }

    /// Takes an answer.
    pub(crate) fn learn(&mut self, contents: Contents, client: Option<Arc<str>>) {
        self.table.insert(contents, Known::Client(client));
    }

    /// The file could not be read, because its process was gone or it had changed: the next one asks again.
    pub(crate) fn give_up(&mut self, contents: &Contents) {
        if self.table.peek(contents) != Some(&Known::Loader) {
            self.table.remove(contents);
        }
        self.unread += 1;
    }

    /// Files that could not be read since the start.
    pub(crate) fn unread(&self) -> u64 {
        self.unread
    }

    /// Answers evicted since the start.
    pub(crate) fn evicted(&self) -> u64 {
        self.table.evicted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn contents(inode: u64, changed_ns: u64) -> Contents {
        Contents { file: FileKey { device: 1, inode }, changed_ns }
    }

    #[test]
    fn a_file_is_asked_for_once_until_it_changes() {
        let mut programs = Programs::new(8);
        assert!(programs.wants(contents(1, 5)));
        assert!(!programs.wants(contents(1, 5)));
        assert_eq!(programs.client(&contents(1, 5)), None);
        programs.learn(contents(1, 5), Some("kubectl".into()));
        assert!(!programs.wants(contents(1, 5)));
        assert_eq!(programs.client(&contents(1, 5)).as_deref(), Some("kubectl"));
        assert!(programs.wants(contents(1, 6)), "other contents");
    }

    #[test]
    fn what_could_not_be_read_is_counted_and_asked_for_again() {
        let mut programs = Programs::new(8);
        assert!(programs.wants(contents(1, 5)));
        programs.give_up(&contents(1, 5));
        assert_eq!(programs.unread(), 1);
        assert!(programs.wants(contents(1, 5)));
    }

    #[test]
    fn what_a_loader_runs_is_asked_for_each_time() {
        let mut programs = Programs::new(8);
        assert!(programs.wants(contents(1, 5)));
        assert!(programs.learn_loader(contents(1, 5)));
        assert!(programs.wants(contents(1, 5)));
        programs.give_up(&contents(1, 5));
        assert!(programs.wants(contents(1, 5)));
        assert_eq!(programs.client(&contents(1, 5)), None);
        assert!(!programs.learn_loader(contents(1, 5)), "no news");
    }

    #[test]
    fn the_table_is_bounded() {
        let mut programs = Programs::new(2);
        for inode in 1..=3 {
            programs.learn(contents(inode, 1), None);
        }
        assert_eq!(programs.evicted(), 1);
    }
}
