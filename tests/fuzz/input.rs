//! The bytes of one run, as two streams: what a peer says from their front, what happens to it
//! (where it is cut, when time passes) from their back. So a transcript is a seed as it stands, and
//! what changes in one of the two leaves the other alone.

/// See the head of this file.
pub struct Input<'d> {
    rest: &'d [u8],
}

impl<'d> Input<'d> {
    /// All of a run.
    pub fn new(data: &'d [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether the two streams have met.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte from the back; 0 if there is none.
    pub fn choice(&mut self) -> u8 {
        let Some((last, rest)) = self.rest.split_last() else { return 0 };
        self.rest = rest;
        *last
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.choice()) % all.len()]
    }

    /// At most so many bytes from the front.
    pub fn take(&mut self, count: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// What is left, as text; what is none is replaced.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.take(usize::MAX)).into_owned()
    }
}
