//! Connections that carry bytes, copied as layer 4 does.

use crate::base::Reason;
use crate::sock::{self, CopyError, Rewind};
use crate::telemetry::ConnectionRecord;
use crate::tunnel::Carrier;

/// Copies both directions, counted in the record.
pub(in crate::l7) async fn copy(
    downstream: Rewind<Carrier>,
    upstream: Carrier,
    record: &ConnectionRecord,
) -> Result<(), CopyError> {
    sock::copy_bidirectional(downstream, upstream, record).await
}

/// Records how a copy ended.
pub(in crate::l7) fn finish(copied: Result<(), CopyError>, record: &mut ConnectionRecord) {
    if let Err(error) = copied {
        record.fail(Reason::PeerReset, error.to_string());
    }
}
