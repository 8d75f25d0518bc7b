//! Which entries hold forms beside the frame that they are kept as, and what these take in all.
//!
//! The forms themselves stand with their entries (`topic.rs`); here is only the order in which they
//! are forgotten. Plain ones go as soon as all readers have them, compressed ones, which are dear,
//! with their entry, or when they take more than their share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::topic::TopicNumber;

/// The entry that holds a form: its topic and `seq`. It may have been dropped since.
pub(crate) type Holder = (TopicNumber, u64);

/// The account of all forms. A form is made while the log is only read, hence the cells.
#[derive(Default)]
pub(crate) struct Encodings {
    plain: RefCell<Vec<Holder>>,
    /// The first made first; an entry stands here once for each form.
    deflated: RefCell<VecDeque<Holder>>,
    bytes: Cell<usize>,
    made: Cell<u64>,
}

impl Encodings {
    /// A plain form was made.
    pub(crate) fn add(&self, holder: Holder, bytes: usize) {
        self.plain.borrow_mut().push(holder);
        self.count(bytes);
    }

    /// A compressed form was made; one that gained nothing takes no bytes.
    pub(crate) fn add_deflated(&self, holder: Holder, bytes: usize) {
        self.deflated.borrow_mut().push_back(holder);
        self.count(bytes);
    }

    fn count(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes);
        self.made.set(self.made.get() + 1);
    }

    /// Forms were forgotten.
    pub(crate) fn remove(&mut self, bytes: usize) {
        *self.bytes.get_mut() -= bytes;
    }

    /// Takes out those that hold plain forms.
    pub(crate) fn take_plain(&mut self) -> Vec<Holder> {
        std::mem::take(self.plain.get_mut())
    }

    /// Takes out the one whose compressed form was made first.
    pub(crate) fn take_deflated(&mut self) -> Option<Holder> {
        self.deflated.get_mut().pop_front()
    }

    /// Strikes out entries that are no longer held, once there are many: where readers are never
    /// through, nothing else does.
    pub(crate) fn tidy(&mut self, entries: usize, is_held: impl Fn(Holder) -> bool) {
        let many = 8 * entries + 64;
        if self.plain.get_mut().len() > many {
            self.plain.get_mut().retain(|&holder| is_held(holder));
        }
        if self.deflated.get_mut().len() > many {
            self.deflated.get_mut().retain(|&holder| is_held(holder));
        }
    }

    /// Bytes of all forms.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// How many were made since the start.
    pub(crate) fn made(&self) -> u64 {
        self.made.get()
    }
}
