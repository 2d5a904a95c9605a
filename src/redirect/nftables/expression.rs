//! nf_tables expressions, the instructions of a rule: load a value into the one register that is used, change it,
//! compare it, use it. A comparison that fails ends the rule.

use std::net::IpAddr;

use super::{
    super::{
        netlink::Attributes,
        program::{Equality, Family},
    },
    abi,
};

/// The instructions of one rule, in order.
#[derive(Default)]
pub struct Expressions {
    list: Attributes,
}

/// Which header an offset counts from.
#[derive(Clone, Copy)]
pub enum Header {
    Network,
    Transport,
}

/// The network's bytes of an address.
pub fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
pub fn protocol_family(family: Family) -> u8 {
    match family {
        Family::Ipv4 => libc::NFPROTO_IPV4 as u8,
        Family::Ipv6 => libc::NFPROTO_IPV6 as u8,
    }
}

impl Expressions {
    /// The value of `NFTA_RULE_EXPRESSIONS`.
    pub fn finish(self) -> Attributes {
        self.list
    }

    /// Loads a property of the packet (`NFT_META_*`).
    pub fn load_meta(self, key: libc::c_int) -> Self {
        let data = Attributes::new()
            .number(abi::META_DESTINATION, abi::REGISTER_1)
            .number(abi::META_KEY, key as u32);
        self.push("meta", data)
    }

    /// Loads a property of the connection (`NFT_CT_*`).
    pub fn load_connection(self, key: libc::c_int) -> Self {
        let data = Attributes::new()
            .number(abi::CT_DESTINATION, abi::REGISTER_1)
            .number(abi::CT_KEY, key as u32);
        self.push("ct", data)
    }

    /// Loads a property of the packet's destination socket; without one the rule ends.
    pub fn load_socket(self, key: u32) -> Self {
        let data = Attributes::new()
            .number(abi::SOCKET_KEY, key)
            .number(abi::SOCKET_DESTINATION, abi::REGISTER_1);
        self.push("socket", data)
    }

    /// Loads bytes of a header.
    pub fn load_payload(self, header: Header, offset: u32, length: u32) -> Self {
        let base = match header {
            Header::Network => libc::NFT_PAYLOAD_NETWORK_HEADER,
            Header::Transport => libc::NFT_PAYLOAD_TRANSPORT_HEADER,
        };
        let data = Attributes::new()
            .number(abi::PAYLOAD_DESTINATION, abi::REGISTER_1)
            .number(abi::PAYLOAD_BASE, base as u32)
            .number(abi::PAYLOAD_OFFSET, offset)
            .number(abi::PAYLOAD_LENGTH, length);
        self.push("payload", data)
    }

    /// Loads a constant.
    pub fn load_value(self, value: &[u8]) -> Self {
        let data = Attributes::new()
            .number(abi::IMMEDIATE_DESTINATION, abi::REGISTER_1)
            .nest(abi::IMMEDIATE_DATA, value_of(value));
        self.push("immediate", data)
    }

    /// `register = (register & mask) ^ xor`; both of the same length.
    pub fn bitwise(self, mask: &[u8], xor: &[u8]) -> Self {
        let data = Attributes::new()
            .number(abi::BITWISE_SOURCE, abi::REGISTER_1)
            .number(abi::BITWISE_DESTINATION, abi::REGISTER_1)
            .number(abi::BITWISE_LENGTH, u32::try_from(mask.len()).unwrap_or(0))
            .nest(abi::BITWISE_MASK, value_of(mask))
            .nest(abi::BITWISE_XOR, value_of(xor));
        self.push("bitwise", data)
    }

    /// Ends the rule unless the register compares so with `value`.
    pub fn compare(self, equality: Equality, value: &[u8]) -> Self {
        let operation = match equality {
            Equality::Is => libc::NFT_CMP_EQ,
            Equality::IsNot => libc::NFT_CMP_NEQ,
        };
        let data = Attributes::new()
            .number(abi::CMP_SOURCE, abi::REGISTER_1)
            .number(abi::CMP_OPERATION, operation as u32)
            .nest(abi::CMP_DATA, value_of(value));
        self.push("cmp", data)
    }

    /// Ends the rule unless the register is an element of the set.
    pub fn look_up(self, set: &str) -> Self {
        let data = Attributes::new()
            .text(abi::LOOKUP_SET, set)
            .number(abi::LOOKUP_SOURCE, abi::REGISTER_1);
        self.push("lookup", data)
    }

    /// Ends the chain with a verdict (`NF_*`).
    pub fn verdict(self, code: libc::c_int) -> Self {
        let verdict = Attributes::new().number(abi::VERDICT_CODE, code.cast_unsigned());
        let data = Attributes::new()
            .number(abi::IMMEDIATE_DESTINATION, abi::REGISTER_VERDICT)
            .nest(abi::IMMEDIATE_DATA, Attributes::new().nest(abi::DATA_VERDICT, verdict));
        self.push("immediate", data)
    }

    /// Counts the packet in a named counter.
    pub fn count(self, counter: &str) -> Self {
        let data = Attributes::new()
            .number(abi::REFERENCE_TYPE, abi::TYPE_COUNTER)
            .text(abi::REFERENCE_NAME, counter);
        self.push("objref", data)
    }

    /// Drops the packet and answers with a reset.
    pub fn refuse(self) -> Self {
        let data = Attributes::new()
            .number(abi::REJECT_TYPE, libc::NFT_REJECT_TCP_RST as u32)
            .bytes(abi::REJECT_CODE, &[0]);
        self.push("reject", data)
    }

    /// Stores the register as a property of the packet.
    pub fn store_meta(self, key: libc::c_int) -> Self {
        let data = Attributes::new()
            .number(abi::META_KEY, key as u32)
            .number(abi::META_SOURCE, abi::REGISTER_1);
        self.push("meta", data)
    }

    /// Stores the register as a property of the connection.
    pub fn store_connection(self, key: libc::c_int) -> Self {
        self.push("ct", stored_connection(key))
    }

    /// As [`Expressions::store_connection`], for its original direction only.
    pub fn store_original(self, key: libc::c_int) -> Self {
        let data = stored_connection(key).bytes(abi::CT_DIRECTION, &[abi::DIRECTION_ORIGINAL]);
        self.push("ct", data)
    }

    /// Translates the destination to this host and the port in the register.
    pub fn redirect(self) -> Self {
        self.push("redir", Attributes::new().number(abi::REDIRECT_PORT_MIN, abi::REGISTER_1))
    }

    /// Translates the source to the address in the register.
    pub fn source_nat(self, family: Family) -> Self {
        let data = Attributes::new()
            .number(abi::NAT_TYPE, libc::NFT_NAT_SNAT as u32)
            .number(abi::NAT_FAMILY, u32::from(protocol_family(family)))
            .number(abi::NAT_ADDRESS_MIN, abi::REGISTER_1);
        self.push("nat", data)
    }

    fn push(mut self, name: &str, data: Attributes) -> Self {
        let expression =
            Attributes::new().text(abi::EXPRESSION_NAME, name).nest(abi::EXPRESSION_DATA, data);
        self.list = self.list.nest(abi::LIST_ELEMENT, expression);
        self
    }
}

fn value_of(bytes: &[u8]) -> Attributes {
    Attributes::new().bytes(abi::DATA_VALUE, bytes)
}

fn stored_connection(key: libc::c_int) -> Attributes {
    Attributes::new().number(abi::CT_KEY, key as u32).number(abi::CT_SOURCE, abi::REGISTER_1)
}
