// What can be managed: one table a kind, from which lists and forms follow.
//
// A field: name ("queue.capacity" lies in the object "queue"), type (text, url, secret, number,
// choice, switch, moment, mappings), required, min, any (fractions), initial, choices, once (the id:
// given at creation, not changeable), suggest (values that others have), wide. Of a number: fallback
// (what holds where it is left out, else 0), none (the message for 0: no limit), needsNumber (what it
// belongs to is not there without it). The gateway checks; its words are shown at the field.
import { h } from './dom.js';
import * as format from './format.js';
import { t } from './i18n.js';

const LIMITS = ['rpm', 'input_tpm', 'output_tpm', 'max_concurrency'].map((name) => ({ name, type: 'number', min: 0, none: 'limit.none' }));
const ENABLED = { name: 'enabled', type: 'switch', initial: true };

function badge(text, kind = '') {
	return h('span', { class: 'badge ' + kind, title: text }, text);
}

// What may be long is cut to two lines where it is shown; the whole is its title, and in the form.
function cut(text, kind = '') {
	return h('span', { class: 'cut ' + kind, title: text }, text);
}

const withDetail = (text, detail) => h('span', {}, cut(text), detail ? cut(detail, 'muted small') : null);

function limitsOf(entry) {
	const parts = LIMITS.filter(({ name }) => entry[name]).map(({ name }) => t('limit.' + name, { n: format.short(entry[name]) }));
	return parts.length ? parts.join(' · ') : t('limit.none');
}

function allowed(entry) {
	return entry.mappings && entry.mappings.length ? cut(entry.mappings.join(' ')) : t('mappings.all');
}

function managedBy(m) {
	const queue = m.queue && m.queue.rate_per_second;
	return h('span', { class: 'badges' },
		badge(m.dialect || 'openai'),
		m.auth === 'required' ? badge(t('badge.auth'), 'accent') : null,
		m.pool ? badge(t('badge.pool', { pool: m.pool })) : null,
		m.keyless ? badge(t('badge.keyless'), 'bad') : null,
		queue ? badge(t('badge.queue', { n: queue })) : null,
		m.timeout_seconds ? badge(t('badge.timeout', { n: m.timeout_seconds })) : null);
}

function healthOf(key) {
	const health = key.health || {};
	const kind = { ok: 'ok', cooling: 'bad', trial: 'warn' }[health.state] || '';
	const known = ['ok', 'cooling', 'trial', 'disabled'].includes(health.state);
	const details = [health.until ? t('health.until', { at: format.clock(health.until) }) : '', health.reason === health.state ? '' : health.reason || ''].filter(Boolean);
	return h('span', {}, badge(known ? t('state.' + health.state) : String(health.state || format.NONE), kind),
		details.length ? h('span', { class: 'muted small detail' }, details.join(' · ')) : null);
}

function expiry(client) {
	if (!client.expires_at) return t('expires.never');
	const over = Date.parse(client.expires_at) < Date.now();
	return over ? badge(t('expires.over', { at: format.moment(client.expires_at) }), 'bad') : format.moment(client.expires_at);
}

// keyless (mappings): its pool has no key that is switched on. The list finds out, the gateway does not say.
export const KINDS = {
	mappings: {
		id: 'prefix', path: (id) => '/api/mappings/' + id.slice(1),
		columns: [
			['prefix', (m) => cut(m.prefix)],
			['target', (m) => withDetail(m.target, m.description)],
			['managed', managedBy],
		],
		groups: [
			{ title: 'group.route', fields: [
				{ name: 'prefix', type: 'text', required: true, once: true, placeholder: '/openai' },
				{ name: 'target', type: 'url', required: true, placeholder: 'https://api.openai.com' },
				{ name: 'description', type: 'text', wide: true },
				ENABLED,
			] },
			{ title: 'group.access', fields: [
				{ name: 'dialect', type: 'choice', choices: ['', 'openai', 'anthropic', 'gemini'] },
				{ name: 'auth', type: 'choice', choices: ['none', 'required'], initial: 'none' },
				{ name: 'pool', type: 'text', suggest: 'keys' },
				{ name: 'key_header', type: 'text', placeholder: 'api-key' },
			] },
			{ title: 'group.time', fields: [
				{ name: 'timeout_seconds', type: 'number', min: 0, any: true, none: 'limit.none' },
				{ name: 'connect_timeout_seconds', type: 'number', min: 0, any: true, fallback: 10 },
				{ name: 'max_body_bytes', type: 'number', min: 0, none: 'limit.none' },
			] },
			{ title: 'group.queue', fields: [
				{ name: 'queue.rate_per_second', type: 'number', min: 0, any: true, needsNumber: true },
				{ name: 'queue.capacity', type: 'number', min: 0, fallback: 20 },
				{ name: 'queue.timeout_seconds', type: 'number', min: 0, any: true, fallback: 5 },
			] },
			{ title: 'group.tokens', fields: [
				{ name: 'reserve_output_tokens', type: 'number', min: 0 },
				{ name: 'include_usage', type: 'switch' },
			] },
		],
	},
	keys: {
		id: 'id', path: (id) => '/api/keys/' + encodeURIComponent(id),
		columns: [
			['id', (k) => cut(k.id)],
			['pool', (k) => cut(k.pool)],
			['key', (k) => (k.key_hint ? '…' + String(k.key_hint).replace(/^[.…*]+/, '') : format.NONE)],
			['weight', (k) => format.count(k.weight ?? 1)],
			['max_requests_per_minute', (k) => (k.max_requests_per_minute ? format.count(k.max_requests_per_minute) : t('limit.none'))],
			['health', healthOf],
		],
		groups: [{ fields: [
			{ name: 'id', type: 'text', once: true, optionalId: true },
			{ name: 'pool', type: 'text', required: true, suggest: 'keys' },
			{ name: 'key', type: 'secret', required: true, wide: true },
			{ name: 'weight', type: 'number', min: 0, initial: 1, fallback: 1 },
			{ name: 'max_requests_per_minute', type: 'number', min: 0, none: 'limit.none' },
			ENABLED,
		] }],
	},
	clients: {
		id: 'id', path: (id) => '/api/clients/' + encodeURIComponent(id),
		columns: [
			['id', (c) => withDetail(c.id, c.name)],
			['limits', limitsOf], ['mappings', allowed], ['expires_at', expiry],
		],
		groups: [
			{ fields: [
				{ name: 'id', type: 'text', once: true, optionalId: true },
				{ name: 'name', type: 'text' },
				{ name: 'expires_at', type: 'moment' },
				ENABLED,
			] },
			{ title: 'group.limits', fields: LIMITS },
			{ title: 'group.mappings', fields: [{ name: 'mappings', type: 'mappings', wide: true }] },
		],
	},
	users: {
		id: 'username', path: (id) => '/api/users/' + encodeURIComponent(id),
		columns: [['username', (u) => cut(u.username)], ['limits', limitsOf], ['mappings', allowed]],
		groups: [
			{ fields: [
				{ name: 'username', type: 'text', required: true, once: true },
				{ name: 'password', type: 'secret', required: true },
				ENABLED,
			] },
			{ title: 'group.limits', fields: LIMITS },
			{ title: 'group.mappings', fields: [{ name: 'mappings', type: 'mappings', wide: true }] },
		],
	},
};

export const fieldsOf = (kind) => KINDS[kind].groups.flatMap((group) => group.fields);
