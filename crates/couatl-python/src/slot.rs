//! A place for one value that either of two threads may take, without waiting.
//!
//! The producer puts its unfinished builders here just before it calls user code and takes them back afterwards; in
//! between, the consumer may take them instead. Whoever swaps the pointer out owns the value: nobody blocks, and
//! nobody can see it half written. The price is one uncontended atomic for each put and each take. A mutex would cost
//! twice that, and would let a descheduled consumer stall a thread that holds the interpreter lock.
#![expect(unsafe_code, reason = "ownership of a box goes through an atomic pointer")]

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};

/// Holds at most one boxed value.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    value: AtomicPtr<T>,
    owns: PhantomData<Option<Box<T>>>,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()), owns: PhantomData }
    }

    /// Puts a value in; gives back what was there.
    pub(crate) fn put(&self, value: Box<T>) -> Option<Box<T>> {
        self.swap(Box::into_raw(value))
    }

    /// Takes the value out, if there is one.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        self.swap(ptr::null_mut())
    }

    #[inline]
    fn swap(&self, new: *mut T) -> Option<Box<T>> {
        // Sequentially consistent: a producer that puts and then reads the consumer's wish, and a consumer that
        // writes its wish and then takes, cannot both miss the other.
        let old = self.value.swap(new, SeqCst);
        // SAFETY: every pointer but null that ever gets in comes from `Box::into_raw` in `put`, and the swap hands it
        // to exactly one caller, who becomes its owner.
        (!old.is_null()).then(|| unsafe { Box::from_raw(old) })
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.take();
    }
}

// SAFETY: the slot gives a `T` from one thread to another and never shares a reference to it.
unsafe impl<T: Send> Send for Slot<T> {}
// SAFETY: as above; the only access is the atomic swap.
unsafe impl<T: Send> Sync for Slot<T> {}
