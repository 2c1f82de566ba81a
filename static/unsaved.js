// What would be lost by leaving: a form that is half filled in, an edited text, a key shown once. Each
// says for itself whether it holds something; the browser asks before the page is left or loaded again.
const holders = new Set();

// Returns what ends it.
export function hold(isDirty) {
	holders.add(isDirty);
	return () => holders.delete(isDirty);
}

export const isUnsaved = () => [...holders].some((isDirty) => isDirty());

window.addEventListener('beforeunload', (event) => {
	if (!isUnsaved()) return;
	event.preventDefault();
	event.returnValue = true; // for browsers that go by this
});
