//! The call that wakes the driver.

use std::sync::Arc;

/// Called from any thread when there is work for the driver. It must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;
