//! Bytes to lines of bounded length: what is longer is passed over and counted.

/// Most bytes of one event. With both bodies of the largest object that etcd takes (1.5 MiB), an event has some 4 MiB.
pub const EVENT_MAX: usize = 8 << 20;
/// What is kept allocated between lines.
const KEPT_MAX: usize = 256 << 10;

/// Lines out of pieces of any size; holds at most one line of at most [`EVENT_MAX`] bytes.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// That line is too long already.
    too_long: bool,
    skipped: u64,
}

impl Lines {
    /// Takes a piece of the input and hands on every line that it completes, without newline; empty lines are left out.
    pub fn feed(&mut self, mut piece: &[u8], mut line: impl FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', piece) {
            let (head, tail) = (&piece[..end], &piece[end + 1..]);
            if self.begun.is_empty() && !self.too_long && head.len() <= EVENT_MAX {
                emit(head, &mut line);
            } else {
                self.extend(head);
                self.end(&mut line);
            }
            piece = tail;
        }
        self.extend(piece);
    }

    /// Ends the input: what has no newline is a line, too.
    pub fn finish(&mut self, mut line: impl FnMut(&[u8])) {
        self.end(&mut line);
    }

    /// Bytes of the line whose end has not come yet; they are not to be read again after a restart of the tail.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.begun.len()
    }

    /// Lines that were too long.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn extend(&mut self, part: &[u8]) {
        if self.too_long {
            return;
        }
        if self.begun.len() + part.len() > EVENT_MAX {
            self.too_long = true;
            self.begun = Vec::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn end(&mut self, line: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.too_long) {
            self.skipped += 1;
        } else {
            emit(&self.begun, line);
        }
        self.begun.clear();
        self.begun.shrink_to(KEPT_MAX);
    }
}

fn emit(bytes: &[u8], line: &mut impl FnMut(&[u8])) {
    if !bytes.trim_ascii().is_empty() {
        line(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.feed(piece, |line| all.push(line.to_vec()));
        }
        lines.finish(|line| all.push(line.to_vec()));
        (all, lines.skipped())
    }

    #[test]
    fn lines_do_not_depend_on_how_the_input_is_cut() {
        let expected = (vec![b"ab".to_vec(), b"cd".to_vec(), b"e".to_vec()], 0);
        assert_eq!(lines(&[b"ab\n\ncd\ne"]), expected);
        assert_eq!(lines(&[b"a", b"b\n", b"\nc", b"d", b"\ne\n"]), expected);
    }

    #[test]
    fn a_line_beyond_the_budget_is_counted_and_leaves_the_next_one_whole() {
        let piece = vec![b'x'; EVENT_MAX / 4];
        let mut input = vec![piece.as_slice(); 401];
        input.push(b"\nok\n");
        assert_eq!(lines(&input), (vec![b"ok".to_vec()], 1));
        let longest = vec![b'x'; EVENT_MAX];
        assert_eq!(lines(&[&longest, b"\n"]), (vec![longest.clone()], 0));
        let too_long = vec![b'x'; EVENT_MAX + 1];
        assert_eq!(lines(&[&too_long]), (Vec::new(), 1));
        let both = [too_long.as_slice(), b"\n"].concat();
        assert_eq!(lines(&[&both]), (Vec::new(), 1));
    }

    #[test]
    fn a_long_line_is_not_held_once_it_is_over() {
        let mut lines = Lines::default();
        lines.feed(&vec![b'x'; EVENT_MAX], |_| ());
        assert_eq!(lines.pending_bytes(), EVENT_MAX);
        lines.feed(b"\n", |_| ());
        assert!(lines.begun.capacity() <= KEPT_MAX);
    }
}
