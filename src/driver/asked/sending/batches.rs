//! Which requests for jobs travel together.

use serde_json::Value;

/// Most bytes of requests for jobs that travel together: far below what any node accepts.
const BYTES_PER_REQUEST: usize = 4 << 20;

/// Most jobs in one request.
const JOBS_PER_REQUEST: usize = 500;

/// Requests in the order given, in groups that may travel together.
pub(super) fn batches(requests: Vec<Value>) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    for request in requests {
        let length = request.to_string().len();
        bytes += length;
        match batches.last_mut() {
            Some(batch) if batch.len() < JOBS_PER_REQUEST && bytes <= BYTES_PER_REQUEST => {
                batch.push(request);
            }
            _ => {
                batches.push(vec![request]);
                bytes = length;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn batches_are_bounded_by_count_and_bytes() {
        let sizes =
            |requests: Vec<Value>| batches(requests).iter().map(Vec::len).collect::<Vec<_>>();
        assert!(sizes(Vec::new()).is_empty());
        assert_eq!(sizes(vec![json!({}); 1001]), [500, 500, 1]);
        let large = json!("x".repeat(3 << 20));
        assert_eq!(sizes(vec![large.clone(), large, json!(1), json!(2)]), [1, 3]);
    }
}
