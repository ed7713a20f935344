/*
 * The lease of a head: who may take writes, and how that right passes from one node to another.
 *
 * Every `d_step` is one thing that is atomic in the code: a statement in a store, a compare-and-set in the
 * registry, a reading. Between two of them anything may happen, for as long as you like: that is what a frozen
 * process, a late message and a killed daemon look like. docs/model.md says which line of code each of them
 * stands for; check.py knows with which switches the model is checked, and what must be found.
 *
 * Time is what is left, or gone, in ticks, never a date: a deadline counts down, a reading of a clock ages.
 * Whatever has no meaning any more is put back to one value, so that equal states look equal.
 */

#ifndef CTLS
#define CTLS    2       /* controllers: whoever runs a playbook */
#endif
#ifndef MAXE
#define MAXE    3       /* the last epoch; 1 is running */
#endif
#ifndef SLIPS
#define SLIPS   0       /* ticks by which a store's clock may fall behind, unnoticed */
#endif
#ifndef CRASHES
#define CRASHES 0       /* restarts of a store's server */
#endif
#ifndef D
#define D       2       /* the lease's duration */
#endif
#ifndef M
#define M       1       /* the margin */
#endif

#define N       3       /* nodes; 0 is the first head */
#define NOBODY  N
#define RIGHT   (D - M) /* Terms.right_s */
#define EXPIRY  (D + M) /* LeaseWatch.left_s */
#define PROCS   (N + CTLS)
#define RUNS    (CTLS + 1)
#define BIT(i)  (1 << (i))

/* Roles. */
#define HEAD      0
#define FOLLOWER  1     /* middle or tail: it has an upstream */
#define OUT       2     /* detached: it has none */

/* What a daemon or a controller is about to do. */
#define IDLE      0
#define CLAIM     1     /* take_up: it has read the clock */
#define PROMOTE   2     /* take_up: it has the lease */
#define GIVE      3     /* take_up and Keeper: the deadline is next */
#define RENEW     4     /* Keeper: it has read the clock */
#define ASK       5     /* Keeper: it collects promises */
#define FENCE     6     /* fence-head has begun */
#define END       7     /* end-lease watches the record */
#define TAKE      8     /* end-lease has seen it end */
#define GRANT     9     /* only without compare-and-set: decided, not recorded */

/* Kinds of runs. */
#define FAILOVER   0
#define SWITCHOVER 1

/* The stores: chain.node. */
byte role[N];
byte epoch[N];          /* the newest that the node knows: it refuses everything older */
byte reign[N];
byte left[N];           /* ticks until lease_until, by the store's own clock */
byte promised[N];       /* ticks until the end of its promise */
bit  restarted[N];      /* since its promotion */

/* The registry: the fold of its stream, and the lease record. */
byte chain;             /* topology.epoch */
byte head[MAXE + 1];    /* to whom each epoch was granted */
byte member[MAXE + 1];  /* the members then, as a set */
byte ongoing;           /* the run that is under way, 0 for none */
bit  moving;            /* moves_the_head(topology.run) */
byte lepoch, holder;
bit  granted[MAXE + 1];

/* A run: what was fixed at its start, and its journal. */
bit  kind[RUNS + 1];
byte repoch[RUNS + 1], old[RUNS + 1];
byte fenced[RUNS + 1];  /* 0 not done, 1 fenced, 2 could not be reached */
bit  ended[RUNS + 1];   /* end-lease is done */
byte chosen[RUNS + 1];  /* the candidate, after fence-others; NOBODY before */

/* Daemons (0 to N - 1) and controllers (from N on). */
byte pc[PROCS];
byte works[PROCS];      /* the epoch that it works for */
byte age[PROCS];        /* ticks since its reading of a store's clock; RIGHT: of no worth any more */
byte asked[N];          /* which members have promised in this round */
bit  lost[N];           /* Keeper.lost_to */
byte mine[CTLS];        /* the run whose step it does */
byte target[CTLS];      /* the node that it promotes */
byte watched[CTLS];     /* ticks for which it has seen the record unchanged, up to EXPIRY */
bit  stale[CTLS];       /* the record is not what it saw last: epoch, holder and renewals in one bit */

byte slips, crashes, i_, slow;
#ifdef JOIN
byte known[N];          /* the members that a daemon has last heard of */
bit  settled[N];        /* its right was renewed since then: Keeper.settled */
bit  joining, joined;
bit  heard;             /* the head is on record as knowing of it */
#endif
#ifdef STEP
byte since[N];          /* ticks since chain.node.seen */
byte then[N];           /* what was left at that reading */
bit  stepped;
#endif
#ifdef LIVE
bit  calm;              /* no fault from now on, and whoever can do something does it within the tick */
bit  fresh[N];          /* its lease was renewed in this tick */
#define CALM calm
#else
#define CALM 0
#endif

#ifdef RESTART_SAME_EPOCH
#define SOUND(i)  true
#else
#define SOUND(i)  (!restarted[i])
#endif
#define REIGNS(i) (role[i] == HEAD && reign[i] == epoch[i] && SOUND(i))         /* chain.head */
#define WRITES(i) (REIGNS(i) && left[i] > 0)                                    /* and chain.leased */

/* A property: said before it is asserted, so that a replay tells the story to its end. */
#ifndef ONLY
#define ONLY 0
#endif
#define HOLDS(n, what) \
    if :: (ONLY == 0 || ONLY == n) && !(what) -> printf("BROKEN P%d\n", n); assert(false) :: else fi

#define QUIET(i)  (!WRITES(i))
inline check_writes() {
    HOLDS(1, WRITES(0) + WRITES(1) + WRITES(2) <= 1);
    HOLDS(7, !(WRITES(0) && restarted[0]) && !(WRITES(1) && restarted[1]) && !(WRITES(2) && restarted[2]))
}

/* ---- The registry. ---- */

inline record_changes() {
    i_ = 0;
    do :: i_ < CTLS -> stale[i_] = 1; watched[i_] = 0; i_++ :: else -> break od;
    i_ = 0
}

inline put_record(ep, who) {
    HOLDS(2, ep >= lepoch);
    HOLDS(8, ep > lepoch || holder == NOBODY || holder == who);
    HOLDS(9, who == NOBODY || (granted[ep] && head[ep] == who));
    lepoch = ep; holder = who;
    record_changes()
}

/* The others write no more, or not for longer than the new head has promised to wait. */
#define ENDS(i, who) (who == i || QUIET(i) || left[i] <= promised[who])

inline record_grant(ep, who, without) {
    printf("epoch %d is granted to node %d\n", ep, who);
    HOLDS(2, ep > chain);
    HOLDS(3, !granted[ep]);
    HOLDS(5, ENDS(0, who) && ENDS(1, who) && ENDS(2, who));
    granted[ep] = 1; head[ep] = who; member[ep] = member[chain] & (255 - (without)); chain = ep
}

/* A run that is over and that nobody is at any more leaves its place to another. */
#define HELD(r) (ongoing == r || mine[0] == r || mine[CTLS - 1] == r)
inline forget_runs() {
    i_ = 1;
    do
    :: i_ <= RUNS ->
        if
        :: !HELD(i_) -> kind[i_] = 0; repoch[i_] = 0; old[i_] = 0; fenced[i_] = 0; ended[i_] = 0; chosen[i_] = NOBODY
        :: else
        fi;
        i_++
    :: else -> break
    od;
    i_ = 0
}

inline start_run(what) {
    i_ = 1;
    do :: HELD(i_) -> i_++ :: else -> break od;
    ongoing = i_; i_ = 0; moving = 0;
    kind[ongoing] = what; repoch[ongoing] = chain + 1; old[ongoing] = head[chain];
    printf("a run begins: kind %d, epoch %d, node %d is the head\n", what, chain + 1, head[chain])
}

inline finish_run() { printf("the run ends\n"); ongoing = 0; moving = 0; forget_runs() }

/* ---- The stores. ---- */

/* What has no meaning until the next promotion. */
inline tidy(node) {
#ifndef RESTART_SAME_EPOCH
    if :: !REIGNS(node) -> left[node] = 0 :: else fi
#else
    skip
#endif
}

inline fence(node, ep) {
    if :: epoch[node] < ep -> epoch[node] = ep; tidy(node) :: else fi
}

inline drop(proc) { pc[proc] = IDLE; works[proc] = 0; age[proc] = RIGHT }

inline read_clock(proc, ep, next) { pc[proc] = next; works[proc] = ep; age[proc] = 0 }

/* _claim(granted=True). It tries its compare-and-set until it wins or it is hopeless, so it is one step here. */
inline claim(proc, node) {
    if
    :: lepoch == works[proc] && holder == node -> record_changes(); pc[proc] = PROMOTE
    :: !(lepoch == works[proc] && holder == node) && lepoch <= works[proc] ->
        printf("node %d takes the lease in epoch %d\n", node, works[proc]);
        put_record(works[proc], node); pc[proc] = PROMOTE
    :: else -> drop(proc)
    fi
}

#ifdef IGNORE_PROMISES
#define FREE(i) true
#else
#define FREE(i) (promised[i] == 0)
#endif
#define HAS_BEEN(i, ep)    (role[i] == HEAD && reign[i] == ep && epoch[i] == ep)
#define PROMOTABLE(i, ep)  (ep >= epoch[i] && ep > reign[i] && FREE(i))

/* No head of an older epoch writes. */
#define OVER(i, node, ep)  (i == node || QUIET(i) || reign[i] >= ep)

inline be_promoted(proc, node) {
    if
    :: HAS_BEEN(node, works[proc]) -> pc[proc] = GIVE
    :: !HAS_BEEN(node, works[proc]) && PROMOTABLE(node, works[proc]) ->
        HOLDS(4, granted[works[proc]] && head[works[proc]] == node);
        HOLDS(6, promised[node] == 0);
        HOLDS(10, OVER(0, node, works[proc]) && OVER(1, node, works[proc]) && OVER(2, node, works[proc]));
        role[node] = HEAD; epoch[node] = works[proc]; reign[node] = works[proc];
        restarted[node] = 0; left[node] = 0; lost[node] = 0;
#ifdef STEP
        since[node] = 0; then[node] = 0;
#endif
        printf("node %d is promoted in epoch %d\n", node, works[proc]);
        pc[proc] = GIVE
    :: else -> drop(proc)
    fi
}

#ifdef LATE_READING
#define GIVES(proc) RIGHT
#else
#define GIVES(proc) (RIGHT - age[proc])
#endif

/* chain.renew. */
inline give_right(proc, node) {
    if
    :: REIGNS(node) && epoch[node] == works[proc] ->
        if :: left[node] < GIVES(proc) -> left[node] = GIVES(proc) :: else fi;
#ifdef STEP
        since[node] = 0; then[node] = left[node];
#endif
#ifdef LIVE
        fresh[node] = 1;
#endif
#ifdef JOIN
        settled[node] = settled[node] || proc == node;
#endif
        printf("node %d may write for %d in epoch %d\n", node, left[node], works[proc]);
        check_writes()
    :: else
    fi;
    drop(proc)
}

/* ---- A node's daemon: its conductor and its keeper. ---- */

/* Whom a keeper asks. */
#ifdef JOIN
#define MEMBERS(i) known[i]
#else
#define MEMBERS(i) member[chain]
#endif
#define OTHERS(i)  (MEMBERS(i) & (255 - BIT(i)))
#ifdef ONE_PROMISE
#define ENOUGH(i)  (asked[i] != 0 || OTHERS(i) == 0)
#else
#define ENOUGH(i)  ((asked[i] & OTHERS(i)) == OTHERS(i))
#endif
#define MAY_ASK(i, j) (pc[i] == ASK && j != i && (OTHERS(i) & BIT(j)) && !(asked[i] & BIT(j)))

/* chain.promise at node `other`, for node `node`. */
inline promise(node, other) {
    if
    :: epoch[other] <= works[node] && role[other] == FOLLOWER ->
        printf("node %d promises node %d, head in epoch %d\n", other, node, works[node]);
        promised[other] = D;
        asked[node] = asked[node] | BIT(other);
        if :: ENOUGH(node) -> pc[node] = GIVE; asked[node] = 0 :: else fi
    :: else -> drop(node); asked[node] = 0
    fi
}

inline ask_for_promises(node) {
    printf("node %d has no answer from the registry\n", node);
    read_clock(node, reign[node], ASK);
    asked[node] = 0;
    if :: OTHERS(node) == 0 -> pc[node] = GIVE :: else fi
}

/* A daemon may act on an old topology: on that of any epoch that its store does not refuse. */
#define KNOWN(i, ep)     (granted[ep] && epoch[i] <= ep)
#define AS_ASKED(i, ep)  (role[i] == FOLLOWER + ((member[ep] & BIT(i)) == 0) && epoch[i] == ep)
#define FOLLOWS(i, ep)   (KNOWN(i, ep) && head[ep] != i && !(role[i] == HEAD && reign[i] == ep) && !AS_ASKED(i, ep))
#define TAKES_UP(i, ep)  (KNOWN(i, ep) && head[ep] == i && !(role[i] == HEAD && reign[i] == ep))
#ifdef RESTART_SAME_EPOCH
#define IN_DOUBT(i)      lost[i]
#else
#define IN_DOUBT(i)      (restarted[i] || lost[i])
#endif
#ifdef LEAVE_FENCED
#define ASKS(i)          (role[i] == HEAD && reign[i] == chain && epoch[i] == chain && IN_DOUBT(i))
#else                   /* a head that is fenced, while no run is there to grant anything, asks too */
#define ASKS(i)          (role[i] == HEAD && reign[i] == chain && (IN_DOUBT(i) || epoch[i] > chain))
#endif
#define MAY_ASK_AGAIN(i) (ASKS(i) && head[chain] == i && !(ongoing != 0 && moving) && chain < MAXE)

#ifdef LIVE
#define RENEWS(i)        (REIGNS(i) && !(calm && (lost[i] || fresh[i])))
#else
#define RENEWS(i)        REIGNS(i)
#endif

inline follow(node, ep) {
    role[node] = FOLLOWER + ((member[ep] & BIT(node)) == 0);
    epoch[node] = ep; reign[node] = 0; restarted[node] = 0; left[node] = 0; lost[node] = 0;
#ifdef STEP
    since[node] = 0; then[node] = 0;
#endif
    printf("node %d is what epoch %d asks: role %d\n", node, ep, role[node])
}

#ifdef JOIN             /* the head of the epoch says that it knows who joins */
#ifdef JOIN_AT_ONCE
#define SAYS_HEARD(i)    (joining && !heard && (known[i] & BIT(2)) && REIGNS(i) && reign[i] == chain)
#else
#define SAYS_HEARD(i)    (joining && !heard && (known[i] & BIT(2)) && REIGNS(i) && reign[i] == chain && settled[i])
#endif
#endif

proctype Daemon(byte i) {
    do
    /* The conductor. */
    :: d_step { pc[i] == IDLE && FOLLOWS(i, chain) -> follow(i, chain) }
    :: d_step { pc[i] == IDLE && !CALM && chain > 2 && FOLLOWS(i, chain - 1) -> follow(i, chain - 1) }
    :: d_step { pc[i] == IDLE && TAKES_UP(i, chain) && (!CALM || FREE(i)) -> read_clock(i, chain, CLAIM) }
    :: d_step { pc[i] == IDLE && !CALM && chain > 2 && TAKES_UP(i, chain - 1) -> read_clock(i, chain - 1, CLAIM) }
    :: d_step { pc[i] == CLAIM -> claim(i, i) }
    :: d_step { pc[i] == PROMOTE -> be_promoted(i, i) }
    :: d_step { pc[i] == GIVE -> give_right(i, i) }
    :: d_step { pc[i] == IDLE && MAY_ASK_AGAIN(i) -> record_grant(chain + 1, i, 0); lost[i] = 0 }

    /* The keeper. */
    :: d_step { pc[i] == IDLE && RENEWS(i) -> read_clock(i, reign[i], RENEW) }
    :: d_step { pc[i] == RENEW && lepoch == works[i] && holder == i ->
        printf("node %d renews its lease\n", i);
#ifdef JOIN_BY_RENEWAL
        if :: i == 0 && joining -> heard = 1 :: else fi;
#endif
        record_changes(); lost[i] = 0; pc[i] = GIVE }
    :: d_step { pc[i] == RENEW && !(lepoch == works[i] && holder == i) ->
#ifdef RENEW_ANY
        printf("node %d renews the lease, which is not its own\n", i);
        HOLDS(8, false); record_changes(); pc[i] = GIVE
#else
        lost[i] = REIGNS(i) && reign[i] == works[i]; drop(i)
#endif
        }
#ifndef NO_FAILSAFE
    :: d_step { pc[i] == RENEW && !CALM -> ask_for_promises(i) }
    :: d_step { pc[i] == RENEW && !CALM && lepoch == works[i] && holder == i -> record_changes(); ask_for_promises(i) }
    :: d_step { MAY_ASK(i, 0) -> promise(i, 0) }
    :: d_step { MAY_ASK(i, 1) -> promise(i, 1) }
    :: d_step { MAY_ASK(i, 2) -> promise(i, 2) }
#endif
    /* It is killed, or whom it asked does not answer. */
    :: d_step { pc[i] != IDLE && (!CALM || pc[i] == ASK) -> drop(i); asked[i] = 0 }
#ifdef JOIN
    :: d_step { pc[i] == IDLE && known[i] != (member[chain] | joining * BIT(2)) ->
        known[i] = member[chain] | joining * BIT(2); settled[i] = 0 }
#ifndef JOIN_BY_RENEWAL
    :: d_step { SAYS_HEARD(i) -> heard = 1; printf("node %d says that it knows who joins\n", i) }
#endif
#endif
    od
}

/* ---- A controller, or an operator: the steps of a playbook. ---- */

#define ACTIVE(c)     (ongoing != 0 && ongoing == mine[c])
#define OPEN          (ongoing != 0 && chain < repoch[ongoing])      /* its epoch was not granted to anybody yet */
#define AT(c)         (pc[N + c] == IDLE)
#define WITHOUT(r)    ((kind[r] == FAILOVER) * BIT(old[r]))
#define CAN_GRANT     (OPEN && chosen[ongoing] != NOBODY && (member[chain] & BIT(chosen[ongoing])))

inline leave(ctl) { drop(N + ctl); mine[ctl] = 0; target[ctl] = 0; stale[ctl] = 1; watched[ctl] = 0; forget_runs() }

inline end_lease_is_done(ctl) {
    if :: ACTIVE(ctl) -> ended[ongoing] = 1 :: else fi;
    leave(ctl)
}

/* fence-others, with `node` as the candidate; `both`: the third node can be reached, too. */
inline fence_others(node, both) {
    printf("node %d is fenced, and chosen\n", node);
    fence(node, repoch[ongoing]);
    if :: both -> i_ = 3 - old[ongoing] - node; fence(i_, repoch[ongoing]); i_ = 0 :: else fi;
    chosen[ongoing] = node
}
#ifdef NO_END
#define LEASE_ENDED true
#else
#define LEASE_ENDED ended[ongoing]
#endif
/* As long as nodes 1 and 2 are alike, it does not matter which is chosen. */
#define ALIKE         (chain == 1 && epoch[1] == epoch[2] && promised[1] == promised[2] && \
                       (asked[0] == 0 || asked[0] == 6) && slips == 0)
#define CHOOSES(c, i) (AT(c) && OPEN && fenced[ongoing] != 0 && LEASE_ENDED && chosen[ongoing] == NOBODY && \
                       i != old[ongoing] && (member[chain] & BIT(i)) && !(i == 2 && ALIKE))

#ifdef NO_WAIT
#define PROVEN(c)     true
#else
#define PROVEN(c)     (fenced[mine[c]] == 1 || (!stale[c] && watched[c] == EXPIRY))
#endif
#ifdef TAKE_NO_CAS
#define UNCHANGED(c)  true
#else
#define UNCHANGED(c)  (!stale[c])
#endif
#ifdef LIVE
#define MAY_FAIL_OVER (!calm || !WRITES(head[chain]))
#else
#define MAY_FAIL_OVER true
#endif
#ifdef NO_AUTOMATION    /* faults have stopped, and nobody runs a playbook */
#define ACTS          (!CALM)
#else
#define ACTS          true
#endif

proctype Controller(byte c) {
    do
    /* Runs begin, end, and are ended by what is more urgent. */
    :: d_step { AT(c) && ACTS && ongoing == 0 && chain < MAXE && MAY_FAIL_OVER -> start_run(FAILOVER) }
    :: d_step { AT(c) && ACTS && ongoing != 0 && !OPEN -> finish_run() }
#ifndef NO_SWITCHOVER
    :: d_step { AT(c) && !CALM && ongoing == 0 && chain < MAXE -> start_run(SWITCHOVER) }
    :: d_step { AT(c) && !CALM && ongoing != 0 && kind[ongoing] == SWITCHOVER -> finish_run() }
#endif

    /* A run is taken back: the old head is granted the epoch; or it can't be reached. */
    :: d_step { AT(c) && OPEN && moving && !CALM && (!restarted[old[ongoing]] || !SOUND(old[ongoing])) ->
        printf("the run is taken back\n"); record_grant(repoch[ongoing], old[ongoing], 0) }
    :: d_step { AT(c) && OPEN && moving && !CALM -> printf("the run is taken back without the old head\n"); finish_run() }

    /* fence-head, fence-head-if-reachable. */
    :: d_step { AT(c) && ACTS && OPEN && fenced[ongoing] == 0 -> moving = 1; mine[c] = ongoing; pc[N + c] = FENCE }
    :: d_step { pc[N + c] == FENCE ->
        printf("node %d is fenced for epoch %d\n", old[mine[c]], repoch[mine[c]]);
        fence(old[mine[c]], repoch[mine[c]]);
        if :: ACTIVE(c) && fenced[ongoing] == 0 -> fenced[ongoing] = 1 :: else fi;
        leave(c) }
    :: d_step { pc[N + c] == FENCE && !CALM && kind[mine[c]] == FAILOVER ->        /* its answer is lost */
        fence(old[mine[c]], repoch[mine[c]]);
        if :: ACTIVE(c) && fenced[ongoing] == 0 -> fenced[ongoing] = 2 :: else fi;
        leave(c) }
    :: d_step { pc[N + c] == FENCE && !CALM && kind[mine[c]] == FAILOVER ->        /* it can't be reached */
        printf("node %d can't be fenced\n", old[mine[c]]);
#ifdef FENCE_BELIEVED
        if :: ACTIVE(c) && fenced[ongoing] == 0 -> fenced[ongoing] = 1 :: else fi;
#else
        if :: ACTIVE(c) && fenced[ongoing] == 0 -> fenced[ongoing] = 2 :: else fi;
#endif
        leave(c) }

    /* end-lease. */
    :: d_step { AT(c) && ACTS && OPEN && fenced[ongoing] != 0 && !ended[ongoing] -> mine[c] = ongoing; pc[N + c] = END }
    :: d_step { pc[N + c] == END && lepoch >= repoch[mine[c]] -> end_lease_is_done(c) }
    :: d_step { pc[N + c] == END && lepoch < repoch[mine[c]] && PROVEN(c) ->
        printf("the lease has ended, as controller %d sees it\n", c);
        stale[c] = 0; watched[c] = EXPIRY; pc[N + c] = TAKE }
    :: d_step { pc[N + c] == END && lepoch < repoch[mine[c]] && stale[c] -> stale[c] = 0; watched[c] = 0 }
    :: d_step { pc[N + c] == TAKE ->
        if
        :: UNCHANGED(c) && lepoch <= repoch[mine[c]] ->
            printf("controller %d ends the lease\n", c);
            put_record(repoch[mine[c]], NOBODY); end_lease_is_done(c)
        :: !(UNCHANGED(c) && lepoch <= repoch[mine[c]]) && fenced[mine[c]] == 1 -> pc[N + c] = END; watched[c] = 0
        :: else -> leave(c)
        fi }

    /* fence-others. */
    :: d_step { CHOOSES(c, 0) && ACTS -> fence_others(0, true) }
    :: d_step { CHOOSES(c, 1) && ACTS -> fence_others(1, true) }
    :: d_step { CHOOSES(c, 2) && ACTS -> fence_others(2, true) }
    :: d_step { CHOOSES(c, 0) && !CALM -> fence_others(0, false) }
    :: d_step { CHOOSES(c, 1) && !CALM -> fence_others(1, false) }
    :: d_step { CHOOSES(c, 2) && !CALM -> fence_others(2, false) }

    /* grant-epoch. */
#ifdef GRANT_NO_CAS
    :: d_step { AT(c) && CAN_GRANT -> mine[c] = ongoing; pc[N + c] = GRANT }
    :: d_step { pc[N + c] == GRANT -> record_grant(repoch[mine[c]], chosen[mine[c]], WITHOUT(mine[c])); leave(c) }
#else
    :: d_step { AT(c) && ACTS && CAN_GRANT -> record_grant(repoch[ongoing], chosen[ongoing], WITHOUT(ongoing)) }
#endif

    /* promote: whoever was granted the epoch of the run. The daemon of the node does the same. */
#ifndef DAEMON_PROMOTES
    :: d_step { AT(c) && !CALM && ongoing != 0 && chain == repoch[ongoing] && !HAS_BEEN(head[chain], chain) ->
        target[c] = head[chain]; read_clock(N + c, chain, CLAIM) }
#ifdef PROMOTE_FIRST
    :: d_step { AT(c) && CAN_GRANT -> target[c] = chosen[ongoing]; read_clock(N + c, repoch[ongoing], CLAIM) }
#endif
    :: d_step { pc[N + c] == CLAIM -> claim(N + c, target[c]); if :: AT(c) -> leave(c) :: else fi }
    :: d_step { pc[N + c] == PROMOTE -> be_promoted(N + c, target[c]); if :: AT(c) -> leave(c) :: else fi }
    :: d_step { pc[N + c] == GIVE -> give_right(N + c, target[c]); leave(c) }
#endif

    /* It is killed in the middle of a step. Whoever comes carries the run on, or takes it back. */
    :: d_step { pc[N + c] != IDLE && !CALM -> leave(c) }
    od
}

/* ---- Time, and what breaks. ---- */

#define AGES(proc, node) if :: age[proc] < RIGHT && node != slow -> age[proc]++ :: else fi

/* A tick passes; the clock of node `who` does not see it. */
inline tick(who) {
    slow = who; i_ = 0;
    do
    :: i_ < N ->
        if :: i_ != slow && left[i_] > 0 -> left[i_]-- :: else fi;
        if :: i_ != slow && promised[i_] > 0 -> promised[i_]-- :: else fi;
        AGES(i_, i_);
#ifdef STEP
        if :: role[i_] == HEAD && since[i_] < STEP -> since[i_]++ :: else fi;
#endif
#ifdef LIVE
        fresh[i_] = 0;
#endif
        i_++
    :: else -> break
    od;
    i_ = 0;
    do
    :: i_ < CTLS ->
        AGES(N + i_, target[i_]);
        if :: !stale[i_] && pc[N + i_] == END && watched[i_] < EXPIRY -> watched[i_]++ :: else fi;
        i_++
    :: else -> break
    od;
    i_ = 0; slow = 0
}

inline restart(node) {
    printf("the server of node %d restarts\n", node);
    crashes++; restarted[node] = 1; tidy(node);
    check_writes()
}
#define MAY_RESTART(i) (crashes < CRASHES && !CALM && role[i] == HEAD && reign[i] == epoch[i] && !restarted[i])

/* In the calm: nobody has anything left to do in this tick. */
#ifdef LIVE
#define NODE_RESTS(i) (pc[i] == IDLE && !FOLLOWS(i, chain) && !(TAKES_UP(i, chain) && FREE(i)) && \
                       !MAY_ASK_AGAIN(i) && !(REIGNS(i) && !lost[i] && !fresh[i]))
#define CTL_WAITS     (pc[N] == END && !stale[0] && watched[0] < EXPIRY && !PROVEN(0) && lepoch < repoch[mine[0]])
#ifdef NO_AUTOMATION    /* a run that is under way would be waited for */
#define MAY_CALM      (chain < MAXE && ongoing == 0 && pc[N] == IDLE)
#define CTL_RESTS     (pc[N] == IDLE)
#else
#define MAY_CALM      (chain < MAXE)   /* there is an epoch left to be granted */
#define CTL_RESTS     (CTL_WAITS || (pc[N] == IDLE && ongoing == 0 && (WRITES(head[chain]) || chain == MAXE)))
#endif
#define MAY_TICK      (!calm || (NODE_RESTS(0) && NODE_RESTS(1) && NODE_RESTS(2) && CTL_RESTS))
#else
#define MAY_TICK      true
#endif

/* finish-join waits for the head's word that it knows who joins; or does not wait. */
#ifdef NO_JOIN_WAIT
#define MAY_JOIN true
#else
#define MAY_JOIN heard
#endif

proctype World() {
    do
    :: d_step { MAY_TICK -> printf("tick\n"); tick(NOBODY) }
#if SLIPS
    :: d_step { slips < SLIPS && !CALM && role[0] != OUT -> slips++; printf("tick, but not for the clock of node 0\n"); tick(0) }
    :: d_step { slips < SLIPS && !CALM && role[1] != OUT -> slips++; printf("tick, but not for the clock of node 1\n"); tick(1) }
    :: d_step { slips < SLIPS && !CALM && role[2] != OUT -> slips++; printf("tick, but not for the clock of node 2\n"); tick(2) }
#endif
#if CRASHES
    :: d_step { MAY_RESTART(0) -> restart(0) }
    :: d_step { MAY_RESTART(1) -> restart(1) }
    :: d_step { MAY_RESTART(2) -> restart(2) }
#endif
#ifdef LIVE
    :: d_step { !calm && MAY_CALM -> calm = 1; printf("the faults stop\n") }
#endif
#ifdef STEP
    :: d_step { !stepped && role[0] == HEAD && since[0] > 0 && since[0] < STEP ->
        stepped = 1; printf("the clock of node 0 steps back to where it last looked at it, %d ticks\n", since[0]);
        if :: REIGNS(0) -> left[0] = then[0] :: else fi;
        since[0] = 0; check_writes() }
#endif
#ifdef JOIN
    /* begin-join, and finish-join, which makes node 2 a member. */
    :: d_step { !joining && chain == 1 && !moving -> joining = 1; printf("node 2 is joining\n") }
    :: d_step { joining && !joined && chain == 1 && !moving && MAY_JOIN ->
        joined = 1; member[chain] = 7; printf("node 2 is a member, and node 0 knows of %d\n", known[0]) }
#endif
    od
}

init {
    d_step {
        chain = 1; granted[1] = 1; head[1] = 0; lepoch = 1; holder = 0;
        epoch[0] = 1; epoch[1] = 1; epoch[2] = 1; reign[0] = 1; left[0] = RIGHT;
#ifdef STEP
        then[0] = RIGHT;
#endif
        role[1] = FOLLOWER; role[2] = FOLLOWER;
#ifdef JOIN
        member[1] = 3; known[0] = 3; known[1] = 3; known[2] = 3;
#else
        member[1] = 7;
#endif
        do :: i_ < PROCS -> age[i_] = RIGHT; i_++ :: else -> break od;
        i_ = 0;
        do :: i_ < CTLS -> stale[i_] = 1; i_++ :: else -> break od;
        i_ = 0;
        do :: i_ <= RUNS -> chosen[i_] = NOBODY; i_++ :: else -> break od;
        i_ = 0
    }
    atomic {
        run Daemon(0); run Daemon(1); run Daemon(2);
        run Controller(0);
#if CTLS > 1
        run Controller(1);
#endif
        run World()
    }
}

#ifdef LIVE
/* If the faults stop, some node takes writes again, and again. */
ltl writes_again { [] (calm -> <> (WRITES(0) || WRITES(1) || WRITES(2))) }
#endif
