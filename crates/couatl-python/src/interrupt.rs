//! Cancelling Python: which thread runs user code right now, and how that code is interrupted.
//!
//! ```text
//!   owner (async)      cancel() --> the flag, the wakers, and a note to the interrupter
//!   interrupter        holding the GIL: the flag is set and the state says USER?  KeyboardInterrupt to that thread
//!                      (where an interrupt would not reach it, what it waits for is ended first)
//!   Python thread      HOST --enter--> USER --leave--> HOST; leave withdraws an interrupt that came too late
//! ```
//!
//! The state changes only on the Python thread while it holds the GIL, and is read by the interrupter only while *it*
//! holds the GIL: so no interrupt can hit code of ours, `close()` or deinit.
#![expect(unsafe_code, reason = "CPython offers asynchronous exceptions through its C API alone")]

use std::collections::HashMap;
use std::ffi::c_ulong;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, LazyLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use pyo3::{exceptions::PyKeyboardInterrupt, ffi};

use crate::interpreter::attach;

/// How often the interrupter looks whether a cancelled thread runs user code now.
const LOOK: Duration = Duration::from_millis(100);

/// How long user code may go on after an interrupt before it gets the next one: it may be cleaning up, which the next
/// one would tear; or it has swallowed the first, and is asked again.
const REPEAT: Duration = Duration::from_secs(1);

const HOST: u8 = 0;
const USER: u8 = 1;

/// One Python thread, as those who may cancel it see it.
pub(crate) struct Control {
    id: u64,
    cancelled: AtomicBool,
    done: AtomicBool,
    state: AtomicU8,
    /// What `threading.get_ident()` says on that thread; 0 before it has attached.
    thread: AtomicU64,
    /// An interrupt has been sent and perhaps not been raised.
    pending: AtomicBool,
    /// When the last interrupt was sent that was not withdrawn, or an exception of ours was raised.
    sent: Mutex<Option<Instant>>,
    /// Wakes the thread where it waits for its owner.
    wake: Box<dyn Fn() + Send + Sync>,
    /// A callable that ends what user code waits for, where an interrupt would not: it is called once, and interrupts
    /// come after it.
    release: Mutex<Option<Py<PyAny>>>,
}

impl Control {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let control = Arc::new(Self {
            id: NEXT.fetch_add(1, SeqCst),
            cancelled: AtomicBool::new(false),
            done: AtomicBool::new(false),
            state: AtomicU8::new(HOST),
            thread: AtomicU64::new(0),
            pending: AtomicBool::new(false),
            sent: Mutex::new(None),
            wake: Box::new(wake),
            release: Mutex::new(None),
        });
        LIVE.controls.lock().insert(control.id, Arc::downgrade(&control));
        control
    }

    /// Asks the thread to end. Returns at once; may be called from anywhere, any number of times.
    pub(crate) fn cancel(self: &Arc<Self>) {
        if self.done.load(SeqCst) || self.cancelled.swap(true, SeqCst) {
            return;
        }
        (self.wake)();
        interrupter(self.clone());
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    /// Says which thread this is about. Called by that thread, attached.
    pub(crate) fn attached(&self, py: Python<'_>) -> PyResult<()> {
        let ident = py.import("_thread")?.getattr("get_ident")?.call0()?.extract()?;
        self.thread.store(ident, SeqCst);
        Ok(())
    }

    /// Says what ends the waits of the user code that follows: a callable that does not block, on whatever thread. None
    /// where interrupts do.
    pub(crate) fn released_by(&self, release: Option<Py<PyAny>>) {
        // What was there may be the last reference to something of the user's: it is not dropped under the lock.
        let _old = std::mem::replace(&mut *self.release.lock(), release);
    }

    /// User code follows: interrupts may come. Called by the thread, attached.
    #[inline]
    pub(crate) fn enter(&self, _py: Python<'_>) {
        self.state.store(USER, std::sync::atomic::Ordering::Release);
    }

    /// User code has returned: what was sent and not raised is withdrawn. Called by the thread, attached.
    #[inline]
    pub(crate) fn leave(&self, py: Python<'_>) {
        self.state.store(HOST, std::sync::atomic::Ordering::Release);
        if self.pending.load(std::sync::atomic::Ordering::Relaxed) {
            self.withdraw(py);
        }
    }

    #[cold]
    fn withdraw(&self, _py: Python<'_>) {
        self.pending.store(false, SeqCst);
        *self.sent.lock() = None;
        // SAFETY: attached, as the token proves; null withdraws the pending exception of that thread, which is ours.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.thread.load(SeqCst) as _, ptr::null_mut()) };
    }

    /// An exception of ours is about to end the user code that waits for us. It counts as an interrupt: a second one
    /// would tear what cleans up. Called by the thread, attached.
    pub(crate) fn about_to_raise(&self, py: Python<'_>) {
        if self.pending.load(SeqCst) {
            self.withdraw(py);
        }
        *self.sent.lock() = Some(Instant::now());
    }

    /// The thread is over and cleaned up.
    pub(crate) fn done(&self) {
        self.done.store(true, SeqCst);
        LIVE.controls.lock().remove(&self.id);
        LIVE.gone.notify_all();
    }

    /// Sends an interrupt if user code is running. Called by the interrupter, attached.
    fn interrupt(&self, py: Python<'_>) {
        let release = self.release.lock().take();
        if let Some(release) = release {
            // What it raises is nobody's; the interrupt that follows does its work.
            let _ = release.call0(py);
            return;
        }
        let mut sent = self.sent.lock();
        let waits = sent.is_some_and(|sent| sent.elapsed() < REPEAT);
        if self.state.load(SeqCst) == USER && !self.done.load(SeqCst) && !waits {
            *sent = Some(Instant::now());
            self.pending.store(true, SeqCst);
            let exception = py.get_type::<PyKeyboardInterrupt>();
            let thread = self.thread.load(SeqCst) as c_ulong;
            // SAFETY: attached, as the token proves; CPython looks the thread up by its ident, so one that has ended
            // is no danger, and it takes its own reference to the exception.
            unsafe { ffi::PyThreadState_SetAsyncExc(thread as _, exception.as_ptr()) };
        }
    }
}

/// The threads that have not ended, for whoever ends the process.
static LIVE: LazyLock<Live> = LazyLock::new(Live::default);

#[derive(Default)]
struct Live {
    controls: Mutex<HashMap<u64, Weak<Control>>>,
    gone: Condvar,
}

/// Cancels every scan and write of this process and waits for their threads to end, at most for this long. Gives the
/// number of threads that did not.
///
/// The interpreter lock must not be held: the threads need it to end.
pub fn cancel_all(grace: Duration) -> usize {
    let deadline = Instant::now() + grace;
    let controls: Vec<_> = LIVE.controls.lock().values().filter_map(Weak::upgrade).collect();
    controls.iter().for_each(Control::cancel);
    let mut live = LIVE.controls.lock();
    while !live.is_empty() {
        if LIVE.gone.wait_until(&mut live, deadline).timed_out() {
            break;
        }
    }
    live.len()
}

/// The number of threads that run, or clean up after, a scan or a write.
pub fn live_threads() -> usize {
    LIVE.controls.lock().len()
}

/// Hands a cancelled control to the one thread that waits for the GIL on behalf of all who cancel: a cancel comes from
/// `Drop` on async threads, which must not wait.
fn interrupter(control: Arc<Control>) {
    static SENDER: LazyLock<Mutex<Option<Sender<Arc<Control>>>>> = LazyLock::new(|| Mutex::new(None));
    let mut sender = SENDER.lock();
    let refused = match &*sender {
        Some(sender) => sender.send(control).err().map(|refused| refused.0),
        None => Some(control),
    };
    if let Some(control) = refused {
        let (send, receive) = mpsc::channel();
        // The receiver is alive until the thread has it; if no thread can be had, the flag alone has to do.
        let _ = send.send(control);
        let thread = std::thread::Builder::new().name("couatl-interrupt".into());
        if thread.spawn(move || interrupt_all(&receive)).is_ok() {
            *sender = Some(send);
        }
    }
}

fn interrupt_all(receive: &mpsc::Receiver<Arc<Control>>) {
    let mut waiting: Vec<Arc<Control>> = Vec::new();
    loop {
        let next = if waiting.is_empty() {
            receive.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            receive.recv_timeout(LOOK)
        };
        match next {
            Ok(control) => waiting.push(control),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting.retain(|control| !control.done.load(SeqCst));
        if !waiting.is_empty() {
            attach(|py| waiting.iter().for_each(|control| control.interrupt(py)));
        }
    }
}
