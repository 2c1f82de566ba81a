// Talks to the gateway. The admin token lives in sessionStorage: it ends with the tab and never
// stands in a URL. Every failure is thrown as an ApiError with a message fit to be shown.
import { t } from './i18n.js';

const TOKEN = 'apiproxy.token';
const TIMEOUT_MS = 10000;

// In memory where storage is forbidden.
let remembered = null;

export function getToken() {
	try {
		return sessionStorage.getItem(TOKEN) || remembered;
	} catch (e) {
		return remembered;
	}
}

export function setToken(token) {
	remembered = token;
	try {
		if (token) sessionStorage.setItem(TOKEN, token);
		else sessionStorage.removeItem(TOKEN);
	} catch (e) {
		// kept in memory
	}
}

// status 0: no answer at all. faults: [{place, message}], place "" where none is named.
export class ApiError extends Error {
	constructor(status, code, message, faults = []) {
		super(message);
		this.status = status;
		this.code = code;
		this.faults = faults;
	}
}

// The gateway says {"error":{"code","message"}}. Where it found faults in what was sent, the message
// is their list: "target: must be …; queue.capacity: must be …".
function faultsIn(message) {
	return message.split(/; (?=[\w.[\]-]+: )/).map((part) => {
		const [, place, text] = /^([\w.[\]-]+): ([^]*)$/.exec(part) || [null, '', part];
		return { place, message: text };
	});
}

function errorFrom(status, body) {
	const error = body && typeof body.error === 'object' && body.error ? body.error : {};
	const message = String(error.message || t('error.status', { status }));
	return new ApiError(status, String(error.code || ''), message, status === 400 ? faultsIn(message) : []);
}

// Resolves to {status, body, headers}; throws an ApiError unless the status is 2xx or in `accept`.
export async function request(method, path, { body, token = getToken(), accept = [] } = {}) {
	const headers = {};
	if (token) headers.Authorization = 'Bearer ' + token;
	if (body !== undefined) headers['Content-Type'] = 'application/json';
	let response;
	let text;
	try {
		response = await fetch(path, {
			method, headers, body: body === undefined ? undefined : JSON.stringify(body),
			cache: 'no-store', credentials: 'omit', redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS),
		});
		text = await response.text();
	} catch (e) {
		throw new ApiError(0, 'no_connection', t('error.connection'));
	}
	let parsed = null;
	try {
		parsed = text ? JSON.parse(text) : null;
	} catch (e) {
		if (response.ok) throw new ApiError(response.status, 'bad_answer', t('error.answer'));
	}
	if (!response.ok && !accept.includes(response.status)) throw errorFrom(response.status, parsed);
	return { status: response.status, body: parsed, headers: response.headers };
}

// What the admin page uses: the body alone, and one place that hears of a token that no longer holds.
let onUnauthorized = () => {};

export function whenUnauthorized(callback) {
	onUnauthorized = callback;
}

export async function api(method, path, body) {
	const token = getToken();
	try {
		return (await request(method, path, { body, token })).body;
	} catch (error) {
		// An answer to a token that was given up meanwhile says nothing about the present one.
		if (error.status === 401 && token === getToken()) onUnauthorized();
		throw error;
	}
}
