//! `outlierDetection`.

use super::reading::Reading;
use crate::source::objects::RawOutlierDetection;
use crate::traffic::OutlierDetection;

impl Reading<'_, '_> {
    /// `None` where nothing is counted.
    pub(super) fn outliers(
        &mut self,
        within: &str,
        written: &RawOutlierDetection,
    ) -> Option<OutlierDetection> {
        let at = |field: &str| format!("{within}.{field}");
        let default = OutlierDetection::default();
        let older = written.consecutive_errors;
        if older.is_some() {
            let reason =
                "is deprecated, and taken for consecutiveGatewayErrors; write that instead";
            self.warn(&at("consecutiveErrors"), reason);
        }
        let split = written.split_external_local_origin_errors == Some(true);
        if written.consecutive_local_origin_failures.is_some() && !split {
            let reason = "has no effect without splitExternalLocalOriginErrors";
            self.warn(&at("consecutiveLocalOriginFailures"), reason);
        }
        let local = written.consecutive_local_origin_failures;
        let interval = self.duration(&at("interval"), written.interval.as_deref());
        let base = self.duration(&at("baseEjectionTime"), written.base_ejection_time.as_deref());
        let most = self.percent(&at("maxEjectionPercent"), written.max_ejection_percent);
        let least = self.percent(&at("minHealthPercent"), written.min_health_percent);
        let outliers = OutlierDetection {
            consecutive_errors: written
                .consecutive_5xx_errors
                .unwrap_or(default.consecutive_errors),
            consecutive_gateway_errors: written.consecutive_gateway_errors.or(older).unwrap_or(0),
            // Istio's default is that of errors.
            consecutive_local_failures: split.then(|| local.unwrap_or(default.consecutive_errors)),
            codes: self.codes(&at("outlierDetectionHttpErrorCodes"), written),
            interval: interval.unwrap_or(default.interval),
            base_ejection_time: base.unwrap_or(default.base_ejection_time),
            max_ejection_percent: most.unwrap_or(default.max_ejection_percent),
            min_health_percent: least.unwrap_or(default.min_health_percent),
        };
        let counts = u64::from(outliers.consecutive_errors)
            + u64::from(outliers.consecutive_gateway_errors)
            + u64::from(outliers.consecutive_local_failures.unwrap_or(0));
        (counts > 0).then_some(outliers)
    }

    /// As in Istio, 0 stands for the default.
    fn percent(&mut self, field: &str, written: Option<u32>) -> Option<u32> {
        let written = written.filter(|percent| *percent != 0)?;
        if written > 100 {
            self.error(field, format!("{written} is not from 0 to 100; it is left out"));
            return None;
        }
        Some(written)
    }

    fn codes(&mut self, field: &str, written: &RawOutlierDetection) -> Vec<u16> {
        let mut codes = Vec::new();
        for code in &written.outlier_detection_http_error_codes {
            match u16::try_from(*code).ok().filter(|code| (100..600).contains(code)) {
                Some(code) => codes.push(code),
                None => self.error(field, format!("{code} is not from 100 to 599; it is left out")),
            }
        }
        codes
    }
}
