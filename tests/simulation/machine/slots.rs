//! The slab of clients, which counts how often one of them is looked at.

use std::cell::Cell;

use slab::VacantEntry;

thread_local! {
    static LOOKED: Cell<u64> = const { Cell::new(0) };
}

/// How often the loop has looked at a client, from the beginning of the thread on.
pub fn looked() -> u64 {
    LOOKED.get()
}

fn look() {
    LOOKED.set(LOOKED.get() + 1);
}

#[derive(Debug)]
pub(crate) struct Slab<T>(slab::Slab<T>);

impl<T> Slab<T> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(slab::Slab::with_capacity(capacity))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn vacant_entry(&mut self) -> VacantEntry<'_, T> {
        look();
        self.0.vacant_entry()
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        look();
        self.0.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        look();
        self.0.get_mut(at)
    }

    pub(crate) fn remove(&mut self, at: usize) -> T {
        look();
        self.0.remove(at)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &T)> {
        self.0.iter().inspect(|_| look())
    }
}
