//! What this node is like: what its machine says, and what its settings say, which count.

use std::env::consts;

use nix::unistd::gethostname;

use super::gpus::least;
use crate::board::root::Root;
use crate::model::about::Gpu;
use crate::model::requested::{GPU_CAPABILITY, GPU_MEMORY};
use crate::model::selector::{Labels, check_value};

/// All of them.
pub fn of(root: &Root, gpus: &[Gpu]) -> Labels {
    let mut labels = Labels::new();
    let mut add = |label: &str, value: &str| {
        if check_value(label, value).is_ok() {
            labels.insert(label.to_string(), value.to_string());
        }
    };
    add("arch", consts::ARCH);
    add("os", consts::OS);
    if let Some(name) = gethostname().ok().and_then(|name| name.into_string().ok()) {
        add("hostname", &name);
    }
    let (memory, capability) = least(gpus);
    if let Some(memory) = memory {
        add(GPU_MEMORY, &memory.to_string());
    }
    if let Some(capability) = capability {
        add(GPU_CAPABILITY, capability);
    }
    root.settings.labels.iter().for_each(|(label, value)| add(label, value));
    labels
}
