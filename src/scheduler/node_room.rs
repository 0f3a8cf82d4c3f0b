//! What nodes have allocated and free, beside what they have in all.

use serde_json::{Value, json};

use crate::attempts::allocated::Allocated;
use crate::model::resources::Resources;

/// The nodes as they are shown, with that; without it where it takes too long to find out, and a node
/// of which it is not known what it has.
pub fn with_room(allocated: Option<&Allocated>, mut nodes: Vec<Value>) -> Vec<Value> {
    let Some(by_node) = allocated.map(Allocated::by_node) else { return nodes };
    for node in &mut nodes {
        let name = node["name"].as_str().unwrap_or_default();
        let allocated = by_node.get(name).cloned().unwrap_or(Resources::NONE);
        let total = node.get("resources").cloned().unwrap_or_default();
        let Ok(total) = serde_json::from_value::<Resources>(total) else { continue };
        node["allocated"] = json!(allocated);
        node["free"] = json!(total.minus(&allocated));
    }
    nodes
}
