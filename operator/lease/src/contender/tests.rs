//! L10 to L12, in both directions: a contender's desk, and the holder's rules.

mod candidate;
mod leaving;
mod readiness;
mod release;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use regent_core::fixture::{Federation, at_ms};
use regent_core::ids::{Epoch, NodeName};
use regent_core::message::{Exception, Refusal, Submission, Vote};
use regent_core::plan::{Protection, Trigger};

const P_MS: u64 = 834;

fn group() -> GroupKey {
    "ie/shop".parse().unwrap()
}
fn epoch(e: &str) -> Epoch {
    e.parse().unwrap()
}
fn site(s: &str) -> SiteName {
    s.parse().unwrap()
}

/// One replica, and the witnesses' side of the wire.
struct Desk {
    federation: Federation,
    contender: Contender,
    me: &'static str,
    next: u8,
    /// Requests that were sent, newest last.
    sent: Vec<(Outgoing, Submission)>,
    /// Everything else that came out.
    out: Vec<Output>,
}

/// What a witness says of the group.
#[derive(Clone)]
struct Says {
    refusal: Option<(Refusal, Option<u64>)>,
    vote: Option<(&'static str, &'static str)>,
}

fn yes() -> Says {
    Says { refusal: None, vote: None }
}
fn no(reason: Refusal) -> Says {
    Says { refusal: Some((reason, None)), vote: None }
}
fn wait(reason: Refusal, ms: u64) -> Says {
    Says { refusal: Some((reason, Some(ms))), vote: None }
}
impl Says {
    fn voting(self, site: &'static str, epoch: &'static str) -> Self {
        Self { vote: Some((site, epoch)), ..self }
    }
}

impl Desk {
    fn of(me: &'static str, protection: Protection, trigger: Trigger, readiness: Readiness) -> Self {
        let federation = Federation::new();
        let mut contender = Contender::new(federation.charter.clone(), site(me)).unwrap();
        let plan = federation.verified(&federation.plan(1, protection, trigger));
        contender.set_plans(vec![GroupInput { plan, approved: false, readiness }]);
        let mut desk = Self { federation, contender, me, next: 0, sent: Vec::new(), out: Vec::new() };
        desk.tick(10_000);
        desk
    }

    fn new(me: &'static str) -> Self {
        Self::of(me, Protection::Protected, Trigger::Automatic, Readiness::All)
    }

    /// Home with a certificate for 1.1, asked for at 10000 ms.
    fn holder() -> Self {
        let mut desk = Self::new("ie");
        desk.answer_all(10_010, yes());
        desk.answer_all(10_020, yes());
        assert_eq!(desk.role(10_020), RoleName::Holder);
        desk.out.clear();
        desk
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send(outgoing) => {
                    self.next += 1;
                    let key = self.federation.key(self.me);
                    let nonces = Digest([0; 32]);
                    let submission = self.contender.seal(&outgoing, Digest([self.next; 32]), nonces, key);
                    self.sent.push((outgoing, submission));
                }
                other => self.out.push(other),
            }
        }
    }

    fn tick(&mut self, ms: u64) {
        let outputs = self.contender.tick(at_ms(ms));
        self.take(outputs);
    }

    /// One witness answers the request with that place in `sent`.
    fn answer(&mut self, ms: u64, request: usize, witness: &str, says: Says) {
        let reason = |(reason, wait_ms)| Exception { group: group(), reason, wait_ms };
        let exceptions = says.refusal.map(reason).into_iter().collect();
        let vote = |(s, e): (&str, &str)| (group(), Vote { site: site(s), epoch: epoch(e) });
        let votes = says.vote.map(vote).into_iter().collect::<BTreeMap<_, _>>();
        let grant = self.federation.grant(witness, &self.sent[request].1.request, exceptions, votes);
        let outputs = self.contender.on_answer(at_ms(ms), &site(witness), &grant);
        self.take(outputs);
    }

    /// All witnesses answer the newest request alike.
    fn answer_all(&mut self, ms: u64, says: Says) {
        let newest = self.sent.len() - 1;
        for witness in ["fr", "de", "ch", "lu"] {
            self.answer(ms, newest, witness, says.clone());
        }
    }

    /// The shell passes this site a plan: version 1 with changes.
    fn plan(&mut self, readiness: Readiness, change: impl FnOnce(&mut Plan)) {
        let mut plan: Plan = self.federation.plan(1, Protection::Protected, Trigger::Automatic).peek().unwrap();
        change(&mut plan);
        let plan = self.federation.verified(&self.federation.signed_plan(&plan));
        self.contender.set_plans(vec![GroupInput { plan, approved: false, readiness }]);
    }

    fn held_back(&self, ms: u64) -> Option<HeldBack> {
        self.contender.status(at_ms(ms))[0].held_back
    }

    fn newest(&self) -> &Outgoing {
        &self.sent.last().unwrap().0
    }

    fn asked(&self) -> String {
        self.newest().entries[0].epoch.to_string()
    }

    fn role(&self, ms: u64) -> RoleName {
        self.contender.status(at_ms(ms))[0].role
    }

    fn certified(&self) -> Vec<&Certified> {
        self.out.iter().filter_map(|o| if let Output::Certified(c) = o { Some(c) } else { None }).collect()
    }

    fn events(&self) -> Vec<&ContenderEvent> {
        self.out.iter().filter_map(|o| if let Output::Event(e) = o { Some(e) } else { None }).collect()
    }
}

#[test]
fn l10_a_holder_renews_each_p_at_all_witnesses_with_its_last_certificate_as_proof() {
    let mut desk = Desk::holder();
    let before = desk.sent.len();
    desk.tick(10_010 + P_MS - 10);
    assert_eq!(desk.sent.len(), before, "not before P");
    desk.tick(10_010 + P_MS);
    let renewal = desk.newest();
    assert_eq!((renewal.ask.clone(), renewal.to.len(), renewal.tags.len()), (Ask::Grant, 4, 4));
    let proof = renewal.proofs[0].clone();
    // The fourth grant came after the certificate, and is in the proof.
    assert_eq!(proof.round.grants.len(), 4);
    assert_eq!(proof.entries, renewal.entries);
    let quoted = renewal.tags[&site("fr")].clone();
    desk.answer_all(11_000, yes());
    desk.tick(12_000);
    assert_ne!(desk.newest().tags[&site("fr")], quoted, "the tag of the last answer");
}

#[test]
fn l10_a_holder_that_ran_out_goes_on_asking_for_its_epoch_and_gets_it_again() {
    let mut desk = Desk::holder();
    for step in 1..12 {
        desk.tick(10_010 + step * P_MS);
        assert_eq!(desk.asked(), "1.1");
    }
    let out_of = |e: &&ContenderEvent| matches!(e, ContenderEvent::RanOut { .. });
    assert_eq!((desk.role(20_000), desk.events().iter().filter(|e| out_of(e)).count()), (RoleName::RanOut, 1));
    desk.answer_all(19_200, yes());
    assert_eq!(desk.role(19_200), RoleName::Holder);
    assert_eq!(desk.certified().len(), 1);
}

#[test]
fn l10_a_holder_that_had_no_certificate_for_3_d_asks_as_a_candidate_and_out_of_line_where_few_hear_it() {
    let mut desk = Desk::holder();
    // Two of four go on granting: promises that keep everybody else away.
    let mut ms = 10_010;
    while ms < 10_010 + 4 * 5_000 + P_MS {
        ms += P_MS;
        desk.tick(ms);
        for witness in ["fr", "de"] {
            desk.answer(ms + 5, desk.sent.len() - 1, witness, yes());
        }
    }
    assert_eq!(desk.role(ms), RoleName::Candidate);
    desk.tick(ms + P_MS);
    assert_eq!(desk.newest().ask, Ask::Query { line: Line::Beside });
    assert_eq!(desk.asked(), "1.1", "the same epoch: what is frozen under it is thawed if it comes back");
    desk.answer_all(ms + P_MS + 5, yes().voting("ie", "1.1"));
    desk.answer_all(ms + P_MS + 10, yes());
    assert_eq!((desk.role(ms + P_MS + 10), desk.asked().as_str()), (RoleName::Holder, "1.1"));
}

#[test]
fn l10_a_grant_that_comes_after_the_promise_ran_out_makes_no_certificate() {
    let mut desk = Desk::holder();
    desk.tick(11_000);
    desk.answer_all(16_000, yes());
    assert_eq!(desk.certified().len(), 0);
}

#[test]
fn l10_a_holder_refused_for_a_higher_vote_raises_its_epoch_at_most_once_in_d() {
    let mut desk = Desk::holder();
    desk.tick(11_000);
    let first = desk.sent.len() - 1;
    for witness in ["de", "ch", "lu"] {
        desk.answer(11_010, first, witness, yes());
    }
    desk.answer(11_010, first, "fr", no(Refusal::HigherVote).voting("fr", "4.2"));
    assert_eq!(desk.asked(), "5.1", "the highest term seen + 1, at once");
    desk.answer_all(11_020, yes());
    assert_eq!(desk.role(11_020), RoleName::Holder);
    desk.tick(12_000);
    let again = desk.sent.len() - 1;
    for witness in ["de", "ch", "lu"] {
        desk.answer(12_010, again, witness, yes());
    }
    desk.answer(12_010, again, "fr", no(Refusal::HigherVote).voting("fr", "9.2"));
    assert_eq!(desk.asked(), "5.1");
}

#[test]
fn l10_a_late_certificate_of_a_lower_epoch_is_shown_to_nobody() {
    let mut desk = Desk::holder();
    desk.tick(11_000);
    let lower = desk.sent.len() - 1;
    desk.answer(11_010, lower, "fr", no(Refusal::HigherVote).voting("fr", "4.2"));
    assert_eq!(desk.asked(), "5.1");
    desk.answer_all(11_020, yes());
    let shown = desk.certified().len();
    for witness in ["de", "ch", "lu"] {
        desk.answer(11_030, lower, witness, yes());
    }
    assert_eq!(desk.certified().len(), shown);
    desk.tick(12_000);
    assert_eq!(desk.asked(), "5.1");
}

#[test]
fn l10_a_holder_follows_its_other_replica_s_epoch_without_raising_its_own() {
    let mut desk = Desk::holder();
    desk.tick(11_000);
    let newest = desk.sent.len() - 1;
    desk.answer(11_010, newest, "fr", no(Refusal::HigherVote).voting("ie", "3.1"));
    desk.tick(12_000);
    assert_eq!(desk.asked(), "3.1");
}

#[test]
fn l10_retirement_is_no_reason_to_raise_and_a_retired_epoch_is_not_asked_for_again() {
    let mut desk = Desk::holder();
    desk.tick(11_000);
    desk.answer_all(11_010, no(Refusal::Retired).voting("ie", "1.1"));
    desk.tick(12_000);
    assert_eq!((desk.asked().as_str(), desk.role(12_000)), ("1.1", RoleName::Holder));
    desk.tick(15_100);
    desk.answer_all(15_110, no(Refusal::Retired).voting("ie", "1.1"));
    assert_eq!(desk.role(15_110), RoleName::Candidate);
    desk.tick(16_000);
    assert!(matches!(desk.newest().ask, Ask::Query { .. }));
    assert_eq!(desk.asked(), "2.1");
}

#[test]
fn l10_two_sites_that_go_on_asking_at_a_minority_don_t_hold_each_other_up() {
    // Home ran out; a witness has promised the group to another site with a higher vote, and
    // names the promise and not the vote as its reason.
    let mut desk = Desk::holder();
    desk.tick(15_100);
    let newest = desk.sent.len() - 1;
    desk.answer(15_110, newest, "fr", yes());
    desk.answer(15_110, newest, "ch", wait(Refusal::Promised, 4000).voting("de", "7.3"));
    assert_eq!(desk.role(15_110), RoleName::Candidate);
    assert!(desk.events().iter().any(|e| matches!(e, ContenderEvent::Lost { .. })));
}

#[test]
fn what_is_not_an_answer_of_that_witness_to_this_request_changes_nothing() {
    let mut desk = Desk::new("ie");
    let request = desk.sent[0].1.request.clone();
    let grant = |d: &Desk, w: &str| d.federation.grant(w, &request, Vec::new(), BTreeMap::new());
    let forged = { Envelope { signatures: grant(&desk, "de").signatures, ..grant(&desk, "fr") } };
    for (witness, answer) in [("fr", forged), ("fr", grant(&desk, "de")), ("ie", grant(&desk, "ie"))] {
        assert_eq!(desk.contender.on_answer(at_ms(10_010), &site(witness), &answer), vec![]);
    }
    assert!(desk.contender.status(at_ms(10_010))[0].witnesses.is_empty());
}

#[test]
fn an_older_plan_is_ignored_and_a_group_that_is_not_named_is_let_go() {
    let mut desk = Desk::new("fr");
    let newer = desk.federation.plan(3, Protection::Protected, Trigger::Automatic);
    let older = desk.federation.plan(2, Protection::Protected, Trigger::Automatic);
    for plan in [newer, older] {
        let plan = desk.federation.verified(&plan);
        desk.contender.set_plans(vec![GroupInput { plan, approved: false, readiness: Readiness::All }]);
    }
    assert_eq!(desk.contender.status(at_ms(10_000))[0].plan_version, 3);
    desk.contender.set_plans(Vec::new());
    assert_eq!(desk.contender.status(at_ms(10_000)), vec![]);
}

#[test]
fn one_request_covers_all_groups_and_one_refusal_leaves_the_others_certified() {
    let mut desk = Desk::new("ie");
    let plans = ["shop", "bank"].map(|name| {
        let mut plan: Plan = desk.federation.plan(1, Protection::Protected, Trigger::Automatic).peek().unwrap();
        plan.group.name = name.parse().unwrap();
        let plan = desk.federation.verified(&desk.federation.signed_plan(&plan));
        GroupInput { plan, approved: false, readiness: Readiness::All }
    });
    desk.contender.set_plans(plans.to_vec());
    desk.tick(11_000);
    assert_eq!(desk.newest().entries.len(), 2);
    desk.answer_all(11_010, yes());
    assert_eq!((desk.newest().ask.clone(), desk.newest().entries.len()), (Ask::Grant, 2));
    desk.answer_all(11_020, no(Refusal::Busy));
    let granted: Vec<String> = desk.certified()[0].granted.iter().map(|e| e.group.to_string()).collect();
    assert_eq!(granted, vec!["ie/bank"]);
}
