//! Arrow memory of other libraries, given back where that may wait.
//!
//! What a Python library exports may belong to Python objects, as arrays made of numpy's do: then whoever lets go of the
//! last reference takes the GIL. Batches end in tasks of the engine and of the network, none of which may wait for user
//! code. So their memory is handed to a thread that does nothing else.

use std::ffi::c_void;
use std::mem::{align_of, size_of, transmute};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use arrow::ffi::FFI_ArrowArray;

use crate::interpreter::attach;

/// How long memory may lie until its release, so that the GIL is not asked for with every batch.
const LINGER: Duration = Duration::from_millis(1);

/// What Arrow's C data interface says an array is.
#[repr(C)]
struct CArray {
    length: i64,
    null_count: i64,
    offset: i64,
    n_buffers: i64,
    n_children: i64,
    buffers: *mut *const c_void,
    children: *mut *mut CArray,
    dictionary: *mut CArray,
    release: Option<unsafe extern "C" fn(*mut CArray)>,
    private_data: *mut c_void,
}

const _: () = assert!(size_of::<CArray>() == size_of::<FFI_ArrowArray>());
const _: () = assert!(align_of::<CArray>() == align_of::<FFI_ArrowArray>());

/// The same array, which may be dropped anywhere.
pub(super) fn elsewhere(array: FFI_ArrowArray) -> FFI_ArrowArray {
    if array.is_released() {
        return array;
    }
    let array = Box::into_raw(Box::new(array));
    // SAFETY: both types are the C struct of the interface. The copy shares what the original owns and keeps alive until
    // the copy is released, which is the only one that is used and dropped from here on.
    unsafe {
        let mut copy = array.cast::<CArray>().read();
        copy.release = Some(release);
        copy.private_data = array.cast();
        transmute::<CArray, FFI_ArrowArray>(copy)
    }
}

/// The release callback of such an array.
unsafe extern "C" fn release(array: *mut CArray) {
    // SAFETY: it is called once, with an array from `elsewhere`; without a callback it counts as released.
    let original = unsafe {
        (*array).release = None;
        Box::from_raw((*array).private_data.cast::<FFI_ArrowArray>())
    };
    static RELEASES: OnceLock<Option<Sender<Box<FFI_ArrowArray>>>> = OnceLock::new();
    let releases = RELEASES.get_or_init(|| {
        let (sender, inbox) = channel();
        let started = thread::Builder::new().name("couatl-release".into()).spawn(move || release_all(&inbox));
        started.is_ok().then_some(sender)
    });
    match releases {
        // What cannot be sent is dropped here, which is late at worst.
        Some(releases) => drop(releases.send(original)),
        None => drop(original),
    }
}

fn release_all(inbox: &Receiver<Box<FFI_ArrowArray>>) {
    while let Ok(first) = inbox.recv() {
        thread::sleep(LINGER);
        attach(|_| {
            drop(first);
            inbox.try_iter().for_each(drop);
        });
    }
}
