//! Which entries hold forms beside the frame that they are kept as, and what these take in all.
//!
//! The forms themselves stand with their entries (`topic.rs`); here is only the order in which they
//! are forgotten. Plain ones go as soon as all readers have them, compressed ones, which are dear,
//! with their entry, or when they take more than their share.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use crate::topic::{Encoded, Form, TopicNumber, give_back};

/// The entry that holds a form, by its topic and `seq`, and which. It may have been dropped since.
#[derive(Clone, Copy)]
pub(crate) struct Holder {
    pub(crate) topic: TopicNumber,
    pub(crate) seq: u64,
    pub(crate) form: Form,
}

/// The account of all forms. A form is made while the log is only read, hence the cells.
#[derive(Default)]
pub(crate) struct Encodings {
    plain: RefCell<Vec<Holder>>,
    /// The first made first.
    deflated: RefCell<VecDeque<Holder>>,
    held: Cell<Encoded>,
    made: Cell<u64>,
}

impl Encodings {
    /// A plain form was made.
    pub(crate) fn add(&self, holder: Holder, bytes: usize) {
        self.plain.borrow_mut().push(holder);
        self.count(bytes);
    }

    /// A compressed form was made; of one that gained nothing only its place counts.
    pub(crate) fn add_deflated(&self, holder: Holder, bytes: usize) {
        self.deflated.borrow_mut().push_back(holder);
        self.count(bytes);
    }

    fn count(&self, bytes: usize) {
        self.held.set(self.held.get().and(bytes));
        self.made.set(self.made.get() + 1);
    }

    /// Forms were forgotten.
    pub(crate) fn remove(&mut self, encoded: Encoded) {
        let held = self.held.get_mut();
        held.forms -= encoded.forms;
        held.bytes -= encoded.bytes;
    }

    /// Takes out those that hold plain forms.
    pub(crate) fn take_plain(&mut self) -> Vec<Holder> {
        std::mem::take(self.plain.get_mut())
    }

    /// Takes out the one whose compressed form was made first.
    pub(crate) fn take_deflated(&mut self) -> Option<Holder> {
        self.deflated.get_mut().pop_front()
    }

    /// Strikes out entries that are no longer held, once they are as many as forms: where readers
    /// are never through, nothing else does.
    pub(crate) fn tidy(&mut self, is_held: impl Fn(Holder) -> bool) {
        let many = 2 * self.held.get().forms + 64;
        let plain = self.plain.get_mut();
        if plain.len() > many {
            plain.retain(|&holder| is_held(holder));
            plain.shrink_to(2 * plain.len());
        }
        let deflated = self.deflated.get_mut();
        if deflated.len() > many {
            deflated.retain(|&holder| is_held(holder));
            give_back(deflated);
        }
    }

    /// Bytes of all forms.
    pub(crate) fn bytes(&self) -> usize {
        self.held.get().bytes
    }

    /// How many were made since the start.
    pub(crate) fn made(&self) -> u64 {
        self.made.get()
    }
}
