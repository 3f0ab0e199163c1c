//! What runs here, for the other standbys: home's revision and what people changed of it here.
//!
//! The replica that leads writes it beside the revision once all of it is ready, and not before:
//! until a change works here it is started nowhere else. Either replica answers who asks.

use std::time::Duration;

use regent_core::ids::{Epoch, GroupKey};
use regent_core::sign::Digest;
use regent_kinds::amend::{Amendment, Change};
use regent_shell::clock;
use tonic::Status;

use super::Standby;
use super::apply::ApplyError;
use super::store::Held;
use crate::federation::server::Answer;

/// How long it is known without another look what is offered.
const FRESH: Duration = Duration::from_secs(3);

impl Standby {
    /// Offers what runs here; or says why it is not carried.
    pub(super) async fn offer(
        &self,
        group: &GroupKey,
        runs: &Held,
        changes: Vec<Change>,
    ) -> Result<Option<String>, ApplyError> {
        let epoch = self.shell.group_status(group).and_then(|s| s.certified);
        let home = Digest::try_from(runs.home_digest().to_owned()).ok();
        let Some((epoch, home)) = epoch.zip(home) else { return Ok(None) };
        let made = match Amendment::new(group.clone(), epoch, home, changes) {
            Ok(made) => made,
            Err(e) => return Ok(Some(e.to_string())),
        };
        let said = Some((runs.digest.clone(), made.clone()));
        if self.remember(group, |m| m.offers == said) {
            return Ok(None);
        }
        self.store().offer(group, &runs.digest, &self.context.sign(&made)).await?;
        self.remember(group, |m| m.offers = said);
        Ok(None)
    }

    /// What another standby gets that has `have`, of a group that runs here.
    pub async fn serve(&self, group: &GroupKey, have: &str) -> Result<Answer, Status> {
        let here = &self.context.site;
        let Some(epoch) = self.held_epoch(group) else {
            let text = format!("site {here} is not the home of group {group}, and doesn't hold it; ask who does");
            return Err(Status::failed_precondition(text));
        };
        let now = clock::now();
        let known = self.remember(group, |m| m.offered.clone());
        if let Some((known, at)) = known
            && known == have
            && !at.after(FRESH).passed_for_stopping(now)
        {
            return Ok(Answer::Nothing(None));
        }
        let offered = self.store().offered(group, here, epoch).await;
        let Some((revision, bundle)) = offered.map_err(|e| Status::unavailable(e.to_string()))? else {
            return Ok(Answer::Nothing(Some(format!("what runs at {here} is not ready yet"))));
        };
        let revision = revision.to_string();
        self.remember(group, |m| m.offered = Some((revision.clone(), now)));
        Ok(if revision == have { Answer::Nothing(None) } else { Answer::Bundle(bundle) })
    }

    /// The epoch under which this site holds the group.
    fn held_epoch(&self, group: &GroupKey) -> Option<Epoch> {
        self.shell.group_status(group).filter(|s| s.role.may_run())?.certified
    }
}
