//! What a GPU costs and draws, and the formulas built on it: the one place of these constants. Unaware of tables.
//!
//! Two cost models exist side by side and differ a lot: the dashboard's (all-in power, price per GPU and hour for three ways
//! to own one) and the purchase model of the enrichment (price of the chip over three years, its TDP).

use std::fmt;

/// All-in power and prices of the dashboard for one GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DashboardPrice {
    /// Base GPU, e.g. `h100`.
    pub gpu: &'static str,
    /// All-in power, kW per GPU.
    pub power_kw: f64,
    /// US$ per GPU and hour, by [`Owner`].
    rates: [f64; 3],
    /// The dashboard itself calls the numbers temporary.
    pub temporary: bool,
}

/// Three ways to own a GPU: the letters of `costh`, `costn`, `costr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// `costh`
    Hyperscaler,
    /// `costn`
    Neocloud,
    /// `costr`: three-year rental.
    Rental,
}

impl Owner {
    /// All three in the order of their letters.
    pub const ALL: [Self; 3] = [Self::Hyperscaler, Self::Neocloud, Self::Rental];

    /// `costh`, `costn`, `costr`
    pub fn field(self) -> &'static str {
        match self {
            Self::Hyperscaler => "costh",
            Self::Neocloud => "costn",
            Self::Rental => "costr",
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hyperscaler => "hyperscaler",
            Self::Neocloud => "neocloud",
            Self::Rental => "3-year rental",
        })
    }
}

const fn dashboard_price(
    gpu: &'static str,
    power_kw: f64,
    rates: [f64; 3],
    temporary: bool,
) -> DashboardPrice {
    DashboardPrice { gpu, power_kw, rates, temporary }
}

/// The dashboard's table, as every published row of two dates implies it.
pub const DASHBOARD: [DashboardPrice; 9] = [
    dashboard_price("h100", 1.73, [1.30, 1.69, 1.30], false),
    dashboard_price("h200", 1.73, [1.41, 1.74, 1.60], false),
    dashboard_price("b200", 2.17, [1.95, 2.34, 2.90], false),
    dashboard_price("gb200", 2.10, [2.21, 2.75, 3.30], false),
    dashboard_price("mi300x", 1.79, [1.12, 1.40, 1.55], false),
    dashboard_price("mi325x", 2.18, [1.28, 1.59, 1.80], false),
    dashboard_price("mi355x", 2.65, [1.48, 1.90, 2.10], false),
    dashboard_price("b300", 2.17, [2.34, 2.808, 3.48], true),
    dashboard_price("gb300", 2.10, [2.652, 3.30, 3.96], true),
];

impl DashboardPrice {
    /// Of a base GPU; `None` if the dashboard has no price for it.
    pub fn of(gpu: &str) -> Option<&'static Self> {
        DASHBOARD.iter().find(|price| price.gpu == gpu)
    }

    /// US$ per GPU and hour.
    pub fn rate(&self, owner: Owner) -> f64 {
        self.rates[owner as usize]
    }

    /// US$ per million tokens at `throughput` tokens/s/GPU.
    pub fn cost(&self, owner: Owner, throughput: f64) -> f64 {
        cost_per_million(self.rate(owner), throughput)
    }

    /// Tokens/s per MW at `throughput` tokens/s/GPU.
    pub fn tok_s_per_mw(&self, throughput: f64) -> f64 {
        throughput * 1000.0 / self.power_kw
    }
}

/// Purchase price and TDP of one GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Purchase {
    /// Base GPU, e.g. `h100`.
    pub gpu: &'static str,
    /// US$
    pub capex: f64,
    /// Thermal design power of the chip, kW.
    pub tdp_kw: f64,
}

const fn purchase(gpu: &'static str, capex: f64, tdp_kw: f64) -> Purchase {
    Purchase { gpu, capex, tdp_kw }
}

/// The table of the enrichment.
pub const PURCHASES: [Purchase; 8] = [
    purchase("h100", 30_000.0, 0.7),
    purchase("h200", 40_000.0, 0.7),
    purchase("b200", 50_000.0, 1.0),
    purchase("b300", 60_000.0, 1.0),
    purchase("gb200", 70_000.0, 1.2),
    purchase("mi300x", 20_000.0, 0.75),
    purchase("mi325x", 25_000.0, 0.75),
    purchase("mi355x", 35_000.0, 1.0),
];

/// What stands in for a GPU without an entry; never used without saying so.
pub const FALLBACK: Purchase = PURCHASES[0];

/// Years over which the purchase is written off.
pub const WRITE_OFF_YEARS: f64 = 3.0;

/// US$ per kWh.
pub const ENERGY_PRICE: f64 = 0.12;

impl Purchase {
    /// Of a base GPU; `None` if the table has no entry.
    pub fn of(gpu: &str) -> Option<&'static Self> {
        PURCHASES.iter().find(|entry| entry.gpu == gpu)
    }

    /// US$ per GPU and hour: the write-off and the energy of the chip.
    pub fn hourly_cost(&self) -> f64 {
        self.capex / (WRITE_OFF_YEARS * 365.0 * 24.0) + self.tdp_kw * ENERGY_PRICE
    }
}

/// US$ per million tokens: `rate` in US$ per GPU and hour, `throughput` in tokens/s/GPU.
pub fn cost_per_million(rate: f64, throughput: f64) -> f64 {
    rate / (throughput * 3600.0 / 1e6)
}

/// The base GPU of a hardware key: up to the first `_` or `-` (`b200_trt` is `b200`).
pub fn base_gpu(key: &str) -> &str {
    key.split(['_', '-']).next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_to_their_gpu() {
        assert_eq!(base_gpu("b200_trt"), "b200");
        assert_eq!(base_gpu("gb200-nv_1"), "gb200");
        assert_eq!(base_gpu("h100"), "h100");
        assert_eq!(DashboardPrice::of("tpu"), None);
        assert_eq!(Purchase::of("gb300"), None);
        assert_eq!(FALLBACK.gpu, "h100");
    }

    #[test]
    fn every_owner_has_its_rate() {
        let h200 = DashboardPrice::of("h200").unwrap();
        assert_eq!(Owner::ALL.map(|owner| h200.rate(owner)), [1.41, 1.74, 1.60]);
        assert_eq!(h200.cost(Owner::Hyperscaler, 1e6 / 3600.0), 1.41);
        assert_eq!(h200.tok_s_per_mw(1.73), 1000.0);
    }
}
