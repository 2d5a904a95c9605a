//! The transaction's shape, and that whatever a plan says is encoded well-formed.

use proptest::prelude::*;

use super::*;
use crate::redirect::{CapturePlan, NodePlan, plan_node, plan_workload};

/// Attributes as the kernel walks them: `None` when a length is wrong or padding is missing.
fn well_formed(mut bytes: &[u8], depth: usize) -> Option<usize> {
    let mut count = 0;
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        if kind & libc::NLA_F_NESTED as u16 != 0 {
            count += well_formed(value, depth + 1)?;
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
        count += 1;
    }
    (depth < 10).then_some(count)
}

fn check(table: &Table) {
    let requests = replacement(table).unwrap();
    for request in &requests {
        let attributes = &request.body[4..];
        assert!(well_formed(attributes, 0).is_some(), "{}", request.object);
    }
    let kinds: Vec<_> = requests.iter().map(|one| one.kind & 0xff).collect();
    let head = [abi::BATCH_BEGIN, abi::NEW_TABLE, abi::DELETE_TABLE, abi::NEW_TABLE];
    assert_eq!(kinds[..4], head);
    assert_eq!(kinds.last(), Some(&abi::BATCH_END));
    let awaited = requests.iter().filter(|one| one.flags & libc::NLM_F_ACK as u16 != 0).count();
    assert_eq!(awaited, 1);
    assert_ne!(requests[requests.len() - 2].flags & libc::NLM_F_ACK as u16, 0);
}

proptest! {
    #[test]
    fn any_capture_plan_is_well_formed(ipv4: bool, ipv6: bool, inbound: bool, dns: bool) {
        let table = plan_workload(&CapturePlan { ipv4, ipv6, inbound, dns }).table;
        check(&table);
        check(&table.plain());
    }

    #[test]
    fn any_node_plan_is_well_formed(workloads in prop::collection::vec(any::<IpAddr>(), 0..50)) {
        check(&plan_node(&NodePlan { workloads }).table);
    }

    #[test]
    fn any_comment_is_well_formed(text in ".{0,300}") {
        let bytes = comment(&text);
        prop_assert!(bytes.is_empty() || usize::from(bytes[1]) == bytes.len() - 2);
    }
}

#[test]
fn packets_are_read_from_what_the_kernel_says() {
    let describe = |packets: &[u8]| {
        let data = Attributes::new()
            .bytes(abi::COUNTER_BYTES, &[9; 8])
            .bytes(abi::COUNTER_PACKETS, packets);
        let all = Attributes::new().text(abi::OBJECT_NAME, "x").nest(abi::OBJECT_DATA, data);
        [&[0; 4], all.finish().unwrap().as_slice()].concat()
    };
    assert_eq!(packets(&describe(&7_u64.to_be_bytes())), Some(7));
    assert_eq!(packets(&describe(&[1, 2])), None);
    assert_eq!(packets(&[0; 4]), None);
    assert_eq!(packets(&[]), None);
}

#[test]
fn many_elements_are_spread_over_messages() {
    let workloads = (0..2500_u32).map(|n| IpAddr::V6(u128::from(n).into())).collect();
    let table = plan_node(&NodePlan { workloads }).table;
    check(&table);
    let messages = replacement(&table).unwrap();
    let added = messages.iter().filter(|one| one.kind & 0xff == abi::NEW_SET_ELEMENTS).count();
    assert_eq!(added, 3);
}
