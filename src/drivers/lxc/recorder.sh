# Arguments: RUN DIR PATH, the cgroup.procs files to enter, `--`, the command. See recorder.ts.
unset script
run=$1 dir=$2 path=$3
shift 3
while [ "$1" != -- ]; do
  echo $$ > "$1" || exit 1
  shift
done
shift
echo -900 > /proc/self/oom_score_adj
# A newer start writes its id before it empties the cgroup: whatever the order, a recorder that outlived its daemon by
# a moment never runs a second guest.
read -r current < "$dir/run" && [ "$current" = "$run" ] || exit 1
[ -p "$dir/log" ] || mkfifo -m 600 "$dir/log" || exit 1
PATH=$path "$@" > "$dir/log" &
ended= errors= count=0
while IFS= read -r line; do
  case $line in
    *' Started "'*'" with pid "'*)
      pid=${line##* with pid \"}
      ended=
      echo "$run ${pid%%\"*}" > "$dir/init"
      ;;
    *'Child <'*'> ended on '*)
      ended=${line##*> ended on }
      ;;
    *' ERROR '*)
      if [ $count -lt 6 ]; then
        count=$((count + 1))
        errors="$errors${line##* - }
"
      fi
      ;;
  esac
done < "$dir/log"
wait $!
printf '%s %s\n%s\n%s.\n' "$run" $? "$ended" "$errors" > "$dir/exit"
