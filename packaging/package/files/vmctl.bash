# bash completion for vmctl; the program itself knows its words.
_vmctl() {
	local current="${COMP_WORDS[COMP_CWORD]}" words word
	words=("${COMP_WORDS[@]:1:COMP_CWORD-1}")
	COMPREPLY=()
	# Behind a -- the request below would be taken as an argument.
	for word in "${words[@]}"; do
		[ "$word" != -- ] || return
	done
	case "$current" in
	--) words+=(-) ;;
	-*) words+=("$current") ;;
	esac
	while IFS= read -r word; do
		case "$word" in
		help | h) ;;
		"$current"*) COMPREPLY+=("$word") ;;
		esac
	done < <(vmctl "${words[@]}" --generate-bash-completion 2>/dev/null </dev/null)
}
complete -o bashdefault -o default -F _vmctl vmctl
