//! How lanes are called: by a name that outlives the process, because the group and the transactions of Kafka know them by it.

/// The name of a node's lane.
pub(crate) fn lane_name(prefix: &str, node_id: &str, lane: u32) -> String {
    format!("{prefix}-{node_id}-lane-{lane}")
}

/// The node of a lane that is called so.
pub(crate) fn node_of<'a>(prefix: &str, lane: &'a str) -> Option<&'a str> {
    let named = lane.strip_prefix(prefix)?.strip_prefix('-')?;
    named.rsplit_once("-lane-").map(|(node, _)| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_known_for_its_nodes() {
        for node in ["one", "a-lane-1", "lane"] {
            assert_eq!(node_of("pay", &lane_name("pay", node, 12)), Some(node));
        }
        for other in ["pay", "pay-one", "paying-one-lane-0", "else-one-lane-0"] {
            assert_eq!(node_of("pay", other), None, "{other}");
        }
    }
}
