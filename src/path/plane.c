/* plane: pinning snapshots. Counts are plain numbers: only the worker's thread touches them; the
 * snapshot's own count, which is atomic, changes once per worker and change. */
#include "path/plane.h"

#include <stdlib.h>

#include "base/check.h"
#include "state/settings.h"
#include "state/snapshot.h"

bool plane_logs_access(const struct plane *p)
{
	return __atomic_load_n(&p->settings->log_access, __ATOMIC_RELAXED);
}

struct pinned_snapshot *plane_pin(struct plane *p)
{
	p->pin->users++;
	return p->pin;
}

void plane_unpin(struct pinned_snapshot *pin)
{
	if (!pin || --pin->users)
		return;
	snapshot_unref(pin->snapshot);
	free(pin);
}

void plane_publish(struct plane *p, struct snapshot *take_snapshot)
{
	struct pinned_snapshot *pin = check_calloc(1, sizeof *pin);
	*pin = (struct pinned_snapshot){.snapshot = take_snapshot, .users = 1};
	plane_unpin(p->pin);
	p->pin = pin;
}
