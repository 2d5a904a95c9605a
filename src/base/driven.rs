//! An exchange on a connection that is for this exchange alone.

use std::pin::pin;

/// Drives a connection until the exchange on it is done, or cannot be. `broken` makes the exchange's failure of the connection's.
pub async fn driven<T, E, B>(
    connection: impl Future<Output = Result<(), B>>,
    exchange: impl Future<Output = Result<T, E>>,
    broken: impl FnOnce(B) -> E,
) -> Result<T, E> {
    let (connection, mut exchange) = (pin!(connection), pin!(exchange));
    tokio::select! {
        done = &mut exchange => done,
        // It ends with the server's last byte, which the exchange may not have seen yet.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn the_exchange_decides_unless_the_connection_breaks() {
        type Of<T> = Result<T, &'static str>;
        let broken = |why: &'static str| why;
        let late = async {
            tokio::task::yield_now().await;
            Of::Ok(7)
        };
        assert_eq!(driven(ready(Of::Ok(())), late, broken).await, Ok(7));
        assert_eq!(driven(pending::<Of<()>>(), ready(Of::Ok(7)), broken).await, Ok(7));
        let never = pending::<Of<u8>>();
        assert_eq!(driven(ready(Of::Err("reset")), never, broken).await, Err("reset"));
    }
}
