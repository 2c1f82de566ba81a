// The form of one entry, in a dialog. It sends what was changed in it only, so that two people at the
// same entry do not undo each other's work, and what a control cannot show whole (the fractions of a
// second) stays; a field that was emptied is sent as null, "back to the default".
import { api } from './api.js';
import { h, openDialog } from './dom.js';
import { KINDS, fieldsOf } from './fields.js';
import { hasMessage, t } from './i18n.js';

const idOf = (field) => 'field-' + field.name.replace('.', '-');

function valueIn(entry, name) {
	return name.split('.').reduce((at, part) => (at === null || at === undefined ? undefined : at[part]), entry);
}

function putIn(entry, name, value) {
	const parts = name.split('.');
	const last = parts.pop();
	parts.reduce((at, part) => (at[part] ??= {}), entry)[last] = value;
}

/* ---- controls: {element, read(): value or null where empty, write(value), focus: what to focus} ---- */

function textControl(type) {
	return (field) => {
		const element = h('input', { id: idOf(field), type, autocomplete: type === 'password' ? 'new-password' : 'off', spellcheck: 'false', autocapitalize: 'off', placeholder: field.placeholder });
		return { element, read: () => (type === 'password' ? element.value : element.value.trim()) || null, write: (v) => { element.value = v ?? ''; } };
	};
}

// What holds for a number that is left out; nothing where it must be given.
function placeholderOf(field) {
	if (field.none) return t(field.none);
	return field.needsNumber ? null : String(field.fallback ?? 0);
}

function numberControl(field) {
	const element = h('input', { id: idOf(field), type: 'number', min: field.min, step: field.any ? 'any' : '1', inputmode: field.any ? 'decimal' : 'numeric', placeholder: placeholderOf(field) });
	return {
		// Where 0 is the default, it is shown as one.
		element, read: () => (element.value === '' ? null : Number(element.value)), write: (v) => { element.value = (field.fallback ? v : v || null) ?? ''; },
		fault: () => (element.validity.badInput || element.validity.rangeUnderflow || element.validity.stepMismatch
			? t(field.any ? 'fault.number' : 'fault.whole') : ''),
	};
}

function choiceControl(field) {
	const element = h('select', { id: idOf(field) }, field.choices.map((c) => h('option', { value: c }, choiceLabel(field, c))));
	return { element, read: () => element.value || null, write: (v) => { element.value = v ?? ''; } };
}

function choiceLabel(field, choice) {
	const key = `choice.${field.name}.${choice || 'auto'}`;
	return hasMessage(key) ? t(key) : choice;
}

function switchControl(field) {
	const element = h('input', { id: idOf(field), type: 'checkbox', class: 'switch', role: 'switch' });
	return { element, read: () => element.checked, write: (v) => { element.checked = Boolean(v); } };
}

// The input speaks local time, the gateway RFC 3339.
function momentControl(field) {
	const element = h('input', { id: idOf(field), type: 'datetime-local', step: '1' });
	return {
		element,
		read: () => (element.value ? new Date(element.value).toISOString().replace('.000Z', 'Z') : null),
		write: (v) => {
			const at = v ? new Date(v) : null;
			element.value = at && !Number.isNaN(at.getTime()) ? new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString().slice(0, 19) : '';
		},
		fault: () => (element.validity.badInput ? t('fault.moment') : ''),
	};
}

function mappingsControl(field, { prefixes }) {
	const list = h('div', { class: 'checks' });
	const boxes = () => [...list.querySelectorAll('input')];
	return {
		element: h('fieldset', { id: idOf(field), tabindex: '-1' }, h('legend', { class: 'off-screen' }, t('field.mappings')), list),
		read: () => boxes().filter((box) => box.checked).map((box) => box.value),
		write: (value) => {
			const chosen = value || [];
			const all = [...new Set([...prefixes, ...chosen])].sort();
			list.replaceChildren(...all.map((prefix) => h('label', {},
				h('input', { type: 'checkbox', value: prefix, checked: chosen.includes(prefix) }), h('span', {}, prefix))));
		},
	};
}

const CONTROLS = {
	text: textControl('text'), url: textControl('url'), secret: textControl('password'),
	number: numberControl, choice: choiceControl, switch: switchControl, moment: momentControl, mappings: mappingsControl,
};

/* ---- a field with its label, hint and fault ---- */

function hintFor(kind, field, editing) {
	if (editing && field.once) return '';
	if (editing && field.type === 'secret') return t('hint.unchanged');
	if (field.optionalId && !editing) return t('hint.id');
	for (const key of [`hint.${kind}.${field.name}`, `hint.${field.name}`]) if (hasMessage(key)) return t(key);
	return '';
}

function row(kind, field, context) {
	const control = CONTROLS[field.type](field, context);
	const id = idOf(field);
	const hint = hintFor(kind, field, context.editing);
	const fault = h('p', { class: 'fault', id: id + '-fault' });
	const needed = field.required && !(context.editing && (field.once || field.type === 'secret'));
	const mark = needed ? h('span', { class: 'needed', 'aria-hidden': 'true' }, ' *') : null;
	const label = h('label', { for: id }, t('field.' + field.name), mark);
	control.element.setAttribute('aria-describedby', [hint ? id + '-hint' : '', fault.id].filter(Boolean).join(' '));
	if (needed) control.element.setAttribute('aria-required', 'true');
	if (context.editing && field.once) control.element.readOnly = true;
	if (field.suggest) control.element.setAttribute('list', 'pools');
	const box = field.type === 'switch'
		? h('div', { class: 'field check' }, control.element, label)
		: h('div', { class: 'field' + (field.wide ? ' wide' : '') }, field.type === 'mappings' ? null : label, control.element);
	if (hint) box.append(h('p', { class: 'hint', id: id + '-hint' }, hint));
	box.append(fault);
	return {
		...control, field, box, needed,
		say(text) {
			fault.textContent = text;
			if (text) control.element.setAttribute('aria-invalid', 'true');
			else control.element.removeAttribute('aria-invalid');
		},
	};
}

/* ---- what is sent ---- */

const same = (a, b) => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);

// Against what the control itself showed first, not against the entry: reading it may have rounded that.
const isChanged = (r) => !same(r.read(), r.first);

// To take its rate away is to take the queue away. Where the queue's other fields were filled in at the
// same time, or there was none, the missing rate is a fault to be told.
function hasNoQueue(rows, entry) {
	const filled = rows.filter((r) => r.field.name.startsWith('queue.') && r.read() !== null);
	return !filled.length || Boolean(entry && entry.queue && !filled.some((r) => r.field.name === 'queue.rate_per_second' || isChanged(r)));
}

function changes(rows, entry) {
	const body = {};
	for (const r of rows) {
		if (entry && r.field.once) continue;
		if (isChanged(r) || (!entry && r.field.required)) putIn(body, r.field.name, r.read());
	}
	if (body.queue && hasNoQueue(rows, entry)) body.queue = null;
	return body;
}

const initial = (field) => field.initial ?? null;

/* ---- faults ---- */

function checkHere(rows) {
	for (const r of rows) {
		const empty = r.needed && r.read() === null;
		r.say(empty ? t('fault.needed') : r.fault ? r.fault() : '');
	}
	return focusFirstFault(rows);
}

function focusFirstFault(rows) {
	const first = rows.find((r) => r.element.getAttribute('aria-invalid'));
	if (!first) return true;
	const details = first.element.closest('details');
	if (details) details.open = true;
	first.element.focus();
	return false;
}

function rowAt(rows, place, status) {
	if (status === 409) return rows.find((r) => r.field.once); // its id is taken
	return rows.find((r) => r.field.name === place) || (place && rows.find((r) => r.field.name.startsWith(place + '.')))
		|| rows.find((r) => place.startsWith(r.field.name + '['));
}

// A fault belongs to the field it names; "queue" alone to the queue's first; others to the form, whose
// head may be scrolled out of sight.
function showFaults(rows, alert, error) {
	const rest = [];
	for (const { place, message } of error.faults.length ? error.faults : [{ place: '', message: error.message }]) {
		const at = rowAt(rows, place, error.status);
		if (at) at.say(message);
		else rest.push(place ? `${place}: ${message}` : message);
	}
	alert.textContent = rest.join('\n');
	alert.hidden = !rest.length;
	if (focusFirstFault(rows) && rest.length) alert.focus();
}

/* ---- the dialog ---- */

function group(kind, { title, fields }, rowsOf, entry) {
	const rows = fields.map((field) => rowsOf.get(field));
	const body = h('div', { class: 'fields' }, rows.map((r) => r.box));
	if (!title) return body;
	const used = entry && rows.some((r) => r.field.type !== 'switch' && r.read() !== null && !same(r.read(), []) && !same(r.read(), initial(r.field)));
	const open = kind !== 'mappings' || title === 'group.route' || title === 'group.access' || used;
	return h('details', { open }, h('summary', {}, t(title)), body);
}

// kind: a key of KINDS. entry: what is edited, or null. context: {prefixes, pools}. saved(answer).
export function openForm(kind, entry, { prefixes, pools }, saved) {
	const editing = Boolean(entry);
	const rows = fieldsOf(kind).map((field) => row(kind, field, { editing, prefixes }));
	const rowsOf = new Map(rows.map((r) => [r.field, r]));
	for (const r of rows) {
		r.write(entry ? valueIn(entry, r.field.name) : initial(r.field));
		r.first = r.read();
	}
	const alert = h('p', { class: 'alert bad', role: 'alert', tabindex: '-1', hidden: true });
	const form = h('form', { id: 'entry', novalidate: true, autocomplete: 'off' }, alert,
		h('datalist', { id: 'pools' }, pools.map((pool) => h('option', { value: pool }))),
		KINDS[kind].groups.map((g) => group(kind, g, rowsOf, entry)));
	const save = h('button', { class: 'primary', form: 'entry' }, t(editing ? 'save' : 'create'));
	const cancel = h('button', { type: 'button', onclick: () => dialog.leave() }, t('cancel'));
	const title = editing ? t(`edit.${kind}`, { id: entry[KINDS[kind].id] }) : t(`add.${kind}`);
	const dialog = openDialog({ title, body: form, foot: [cancel, save], wide: true, isDirty: () => rows.some((r) => isChanged(r) || (r.fault && r.fault())) });
	rows.find((r) => !(editing && r.field.once)).element.focus();

	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		alert.hidden = true;
		if (!checkHere(rows) || save.disabled) return;
		const body = changes(rows, entry);
		save.disabled = true;
		try {
			const path = editing ? KINDS[kind].path(entry[KINDS[kind].id]) : '/api/' + kind;
			const answer = await api(editing ? 'PUT' : 'POST', path, body);
			dialog.close();
			saved(answer);
		} catch (error) {
			if (error.status !== 401) showFaults(rows, alert, error); // else the token is asked for
		} finally {
			save.disabled = false;
		}
	});
}
