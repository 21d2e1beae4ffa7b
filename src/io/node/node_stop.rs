//! The end of a node, as other threads of its process wish it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::inbox::EventSender;
use crate::core::node::machine::NodeEvent;

/// Ends a node in good order, from any thread.
#[derive(Clone)]
pub(crate) struct NodeStop {
    wished: Arc<WishedState>,
    post: EventSender,
}

#[derive(Default)]
struct WishedState {
    /// Set by the first signal that asks for the end.
    stopped: AtomicBool,
    launcher_is_silent: AtomicBool,
}

impl NodeStop {
    /// Wakes the control thread and has it remove what cannot be resumed on its way out.
    pub(crate) fn stop(&self) {
        self.wished.stopped.store(true, Ordering::Release);
        self.post.wake();
    }

    /// Says whether the launcher of a launched node is out of reach over its own channel.
    pub(crate) fn launcher_is_silent(&self, is_silent: bool) {
        self.wished.launcher_is_silent.store(is_silent, Ordering::Release);
        self.post.wake();
    }
}

/// The control thread's end: what was wished and is not done.
pub(super) struct NodeWishes {
    wished: Arc<WishedState>,
    /// What the machine was told of the launcher.
    told_silent: bool,
}

impl NodeWishes {
    pub(super) fn new(post: EventSender) -> (NodeWishes, NodeStop) {
        let wished: Arc<WishedState> = Arc::default();
        let stop = NodeStop { wished: Arc::clone(&wished), post };
        (NodeWishes { wished, told_silent: false }, stop)
    }

    /// Returns the next thing that the machine must hear.
    pub(super) fn next(&mut self) -> Option<NodeEvent> {
        if self.wished.stopped.swap(false, Ordering::AcqRel) {
            return Some(NodeEvent::Stop);
        }
        let is_silent = self.wished.launcher_is_silent.load(Ordering::Acquire);
        let is_news = std::mem::replace(&mut self.told_silent, is_silent) != is_silent;
        is_news.then_some(NodeEvent::Launcher { is_silent })
    }
}
