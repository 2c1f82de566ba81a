#!/bin/sh
# Puts the built-in vendor list (src/state/vendors.json) into a Redis from outside. A prefix that is
# there already stays as it is. Running nodes are told and take the new ones over at once.
#
#   scripts/init_redis.sh [-u URL] [-f FILE]
#
# -u   redis://, rediss:// or unix:// as in redis.url; default: API_PROXY_REDIS_URL, else
#      redis://127.0.0.1:6379
# -f   another configuration document; its mappings are loaded, nothing else of it
set -eu

user=
url=${API_PROXY_REDIS_URL:-redis://127.0.0.1:6379}
file=$(dirname "$0")/../src/state/vendors.json
usage() { sed -n '/^#  /,/^set/ { /^#/ { s/^# \{0,1\}//; p; }; }' "$0"; }

while getopts u:f:h option; do
	case $option in
	u) url=$OPTARG ;;
	f) file=$OPTARG ;;
	h) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
done
shift $((OPTIND - 1))
[ $# = 0 ] || { usage >&2 && exit 2; }
[ -r "$file" ] || { echo "init_redis: $file cannot be read" >&2 && exit 1; }

# redis-cli knows no unix://[USER:PASSWORD@]/PATH[?db=N].
case $url in
unix://*)
	rest=${url#unix://}
	case $rest in *@/*)
		login=${rest%%@/*}
		user=${login%%:*}
		REDISCLI_AUTH=${login#*:}
		export REDISCLI_AUTH
		rest=/${rest#*@/}
		;;
	esac
	case $rest in *\?db=*) set -- -n "${rest##*\?db=}" ;; esac
	set -- -s "${rest%%\?*}" ${user:+--user "$user"} "$@"
	;;
*) set -- -u "$url" ;;
esac

# Redis reads the document itself. A mapping that says no more than its target is stored as that.
script='
local mappings = cjson.decode(ARGV[1]).mappings
local added = 0
for _, mapping in ipairs(mappings) do
	local prefix, value = mapping.prefix, mapping.target
	mapping.prefix = nil
	for field in pairs(mapping) do
		if field ~= "target" then value = cjson.encode(mapping) end
	end
	added = added + redis.call("HSETNX", KEYS[1], prefix, value)
end
if added > 0 then redis.call("PUBLISH", ARGV[2], KEYS[1]) end
return added .. " added, " .. (#mappings - added) .. " were there"'

answer=$(redis-cli "$@" EVAL "$script" 1 apiproxy:mappings "$(cat "$file")" apiproxy:changed 2>&1) || true
case $answer in
*" added, "*) printf 'mappings: %s\n' "${answer##*Warning*
}" ;;
*) printf 'init_redis: %s\n' "${answer:-no answer}" >&2 && exit 1 ;;
esac
