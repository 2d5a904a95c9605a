//! Numbers of the kernel's nf_tables interface (`linux/netfilter/nf_tables.h`, `nfnetlink.h`), as far as they are used.
//! The names follow the header, without its abbreviations; `libc` has few of them.

/// `NFNL_SUBSYS_NFTABLES`; the high byte of a message's kind.
pub const SUBSYSTEM: u16 = 10;
pub const BATCH_BEGIN: u16 = 0x10;
pub const BATCH_END: u16 = 0x11;

// Messages (`nf_tables_msg_types`).
pub const NEW_TABLE: u16 = 0;
pub const GET_TABLE: u16 = 1;
pub const DELETE_TABLE: u16 = 2;
pub const NEW_CHAIN: u16 = 3;
pub const NEW_RULE: u16 = 6;
pub const NEW_SET: u16 = 9;
pub const NEW_SET_ELEMENTS: u16 = 12;
pub const NEW_OBJECT: u16 = 18;
pub const GET_OBJECT: u16 = 19;

pub const TABLE_NAME: u16 = 1;

pub const CHAIN_TABLE: u16 = 1;
pub const CHAIN_NAME: u16 = 3;
pub const CHAIN_HOOK: u16 = 4;
pub const CHAIN_POLICY: u16 = 5;
pub const CHAIN_TYPE: u16 = 7;
pub const HOOK_NUMBER: u16 = 1;
pub const HOOK_PRIORITY: u16 = 2;

pub const RULE_TABLE: u16 = 1;
pub const RULE_CHAIN: u16 = 2;
pub const RULE_EXPRESSIONS: u16 = 4;
pub const RULE_USERDATA: u16 = 7;
/// `NFTNL_UDATA_RULE_COMMENT` of libnftnl; the kernel ignores it.
pub const USERDATA_COMMENT: u8 = 0;

pub const SET_TABLE: u16 = 1;
pub const SET_NAME: u16 = 2;
pub const SET_FLAGS: u16 = 3;
pub const SET_KEY_TYPE: u16 = 4;
pub const SET_KEY_LENGTH: u16 = 5;
pub const SET_ID: u16 = 10;
pub const SET_ELEMENTS_TABLE: u16 = 1;
pub const SET_ELEMENTS_SET: u16 = 2;
pub const SET_ELEMENTS: u16 = 3;
pub const SET_ELEMENT_KEY: u16 = 1;
/// Data types of libnftables (`enum datatypes`); the kernel ignores them.
pub const TYPE_IPV4_ADDRESS: u32 = 7;
pub const TYPE_IPV6_ADDRESS: u32 = 8;

pub const OBJECT_TABLE: u16 = 1;
pub const OBJECT_NAME: u16 = 2;
pub const OBJECT_TYPE: u16 = 3;
pub const OBJECT_DATA: u16 = 4;
/// `NFT_OBJECT_COUNTER`.
pub const TYPE_COUNTER: u32 = 1;
pub const COUNTER_BYTES: u16 = 1;
pub const COUNTER_PACKETS: u16 = 2;

pub const LIST_ELEMENT: u16 = 1;
pub const EXPRESSION_NAME: u16 = 1;
pub const EXPRESSION_DATA: u16 = 2;
pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;
pub const VERDICT_CODE: u16 = 1;

pub const REGISTER_VERDICT: u32 = 0;
/// Sixteen bytes, enough for an address or an interface's name.
pub const REGISTER_1: u32 = 1;

pub const META_DESTINATION: u16 = 1;
pub const META_KEY: u16 = 2;
pub const META_SOURCE: u16 = 3;

pub const CT_DESTINATION: u16 = 1;
pub const CT_KEY: u16 = 2;
pub const CT_DIRECTION: u16 = 3;
pub const CT_SOURCE: u16 = 4;
/// `IP_CT_DIR_ORIGINAL`.
pub const DIRECTION_ORIGINAL: u8 = 0;
/// `IPS_CONFIRMED`: the connection's first packet has passed every chain.
pub const STATUS_CONFIRMED: u32 = 8;
/// `IPS_DST_NAT`.
pub const STATUS_TRANSLATED: u32 = 32;
/// `NF_CT_STATE_INVALID_BIT`.
pub const STATE_INVALID: u32 = 1;

pub const PAYLOAD_DESTINATION: u16 = 1;
pub const PAYLOAD_BASE: u16 = 2;
pub const PAYLOAD_OFFSET: u16 = 3;
pub const PAYLOAD_LENGTH: u16 = 4;

pub const BITWISE_SOURCE: u16 = 1;
pub const BITWISE_DESTINATION: u16 = 2;
pub const BITWISE_LENGTH: u16 = 3;
pub const BITWISE_MASK: u16 = 4;
pub const BITWISE_XOR: u16 = 5;

pub const CMP_SOURCE: u16 = 1;
pub const CMP_OPERATION: u16 = 2;
pub const CMP_DATA: u16 = 3;

pub const LOOKUP_SET: u16 = 1;
pub const LOOKUP_SOURCE: u16 = 2;

pub const IMMEDIATE_DESTINATION: u16 = 1;
pub const IMMEDIATE_DATA: u16 = 2;

/// `NFTA_SOCKET_KEY` and `NFTA_SOCKET_DREG`; `NFT_SOCKET_WILDCARD`.
pub const SOCKET_KEY: u16 = 1;
pub const SOCKET_DESTINATION: u16 = 2;
pub const SOCKET_WILDCARD: u32 = 2;

pub const REFERENCE_TYPE: u16 = 1;
pub const REFERENCE_NAME: u16 = 2;

pub const REJECT_TYPE: u16 = 1;
pub const REJECT_CODE: u16 = 2;

pub const REDIRECT_PORT_MIN: u16 = 1;

pub const NAT_TYPE: u16 = 1;
pub const NAT_FAMILY: u16 = 2;
pub const NAT_ADDRESS_MIN: u16 = 3;
