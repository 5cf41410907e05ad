//! What is counted: keys and addresses, the same in every run.

use std::net::Ipv4Addr;

use hashbrown::HashSet;

/// SplitMix64 (Steele et al., 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is far below 2^64.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound.max(1) as u64) as usize
    }
}

/// `n` domains of 20 bytes.
pub fn keys(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("mail{i:07}.test.net")).inspect(|key| debug_assert_eq!(key.len(), 20)).collect()
}

/// Positions below `bound`, drawn uniformly.
pub fn draws(n: usize, bound: usize, seed: u64) -> Vec<u32> {
    let mut random = Random(seed);
    (0..n).map(|_| random.below(bound) as u32).collect()
}

/// How addresses lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spread {
    /// About 128 hosts in each of 8192 blocks of /24, which lie in 512 blocks of /16.
    Clustered,
    /// Anywhere.
    Uniform,
}

impl Spread {
    /// As reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clustered => "clustered",
            Self::Uniform => "uniform",
        }
    }
}

/// `n` different IPv4 addresses in the order in which they were drawn.
pub fn addresses(n: usize, spread: Spread) -> Vec<u32> {
    let mut random = Random(11);
    let wide: Vec<u32> = (0..512).map(|_| (random.draw() as u32) & 0xffff_0000).collect();
    let blocks: Vec<u32> = (0..8192.min(n / 64).max(1))
        .map(|_| wide[random.below(wide.len())] | (random.draw() as u32 & 0xff00))
        .collect();
    let mut seen = HashSet::with_hasher(foldhash::fast::FixedState::default());
    let mut list = Vec::with_capacity(n);
    while list.len() < n {
        let address = match spread {
            Spread::Uniform => random.draw() as u32,
            Spread::Clustered => blocks[random.below(blocks.len())] | (random.draw() as u32 & 0xff),
        };
        if seen.insert(address) {
            list.push(address);
        }
    }
    list
}

/// An address as the engine's key: family, octets, prefix length.
pub fn address_key(address: u32) -> [u8; 6] {
    let [a, b, c, d] = Ipv4Addr::from(address).octets();
    [4, a, b, c, d, 32]
}
