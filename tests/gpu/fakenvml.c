/*
 * libnvidia-ml.so.1 without a GPU: the part of nvml.h that the agent and nvidia-ml-py call, with faults at run time.
 *
 *   cc -shared -fPIC -O2 -pthread -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fakenvml.c
 *
 * -DOLD_DRIVER leaves out what drivers before R510 do not have. Faults and values are settings, KEY=NUMBER, separated by
 * spaces or lines: of the environment variable FAKENVML, of the file named by FAKENVML_FILE (read again whenever it changed),
 * or set by fakenvml_set() from within the process. I is the index of a GPU.
 *
 *   gpus=N           GPUs (2)                      init=CODE        what nvmlInit returns
 *   lost.I=1         that GPU is lost              code.CALL=CODE   what a call returns, of all GPUs
 *   field.ID=CODE    what a field returns          hang.CALL=MS     how long a call takes
 *   energy.I=MJ      energy, now and from now on   value.NAME=N     a value, for the names below
 *   mig.I=N          MIG instances                 xid.I=N          one XID event (again: unset, then set)
 *   value.instances=1  MIG instances answer what is only of their GPU
 *   value.nvlink5=1  links of Blackwell
 *   process.I=PID    one process with memory and utilization value.sm; ghost.I=PID the same, of 37100 %
 *   value.process_size=N  bytes of each of them (24); value.process_clear=1: the rest of the buffer is cleared
 * FAKENVML_TRACE names a file that gets a line "+" for every nvmlInit and "-" for every nvmlShutdown.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, TIMEOUT = 10, LOST = 15 };
enum { MOST_GPUS = 16, MOST_INSTANCES = 7, MOST_SETTINGS = 256, MOST_EVENTS = 64 };

typedef struct { int gpu, instance; } Device;
typedef struct { char key[56]; long long value; } Setting;
typedef union { double d; unsigned ui; unsigned long long ull; long long sll; } Value;
typedef struct { unsigned id, scope; long long timestamp, latency; int type, code; Value value; } Field;
typedef struct { char legacy[16]; unsigned domain, bus, device, ids, subsystem; char id[32]; } Pci;
typedef struct { unsigned pid; unsigned long long memory; unsigned gi, ci; unsigned long long protected; } Process; /* of 535.86, the largest */
typedef struct { unsigned pid; unsigned long long time; unsigned sm, memory, encoder, decoder; } Sample;
typedef struct { Device *device; unsigned long long type, data; unsigned gi, ci; } Event;
typedef struct { unsigned id; int code; double value; char *names[3]; } Metric;
typedef struct { unsigned version, count; void *first, *second; Metric metrics[477]; } Metrics;

static Device devices[MOST_GPUS][1 + MOST_INSTANCES];
static Setting settings[MOST_SETTINGS];
static int setting_count, references;
static long long calls[MOST_GPUS], reads[MOST_GPUS];
static struct timespec file_time;
static Event events[MOST_EVENTS];
static int event_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;

static void put(const char *key, long long value)
{
    int at = 0;
    while (at < setting_count && strcmp(settings[at].key, key)) at++;
    if (at == MOST_SETTINGS) return;
    if (at == setting_count) snprintf(settings[setting_count++].key, sizeof settings->key, "%s", key);
    settings[at].value = value;
    int gpu;
    if (sscanf(key, "xid.%d", &gpu) == 1 && value && event_count < MOST_EVENTS) {
        events[event_count++] = (Event){&devices[gpu][0], 8, value, ~0u, ~0u};
        pthread_cond_broadcast(&arrived);
    }
}

static void parse(char *text)
{
    char *rest = text, *word;
    while ((word = strsep(&rest, " \n"))) {
        char *equals = strchr(word, '=');
        if (equals) { *equals = 0; put(word, atoll(equals + 1)); }
    }
}

static void reload(void)
{
    const char *path = getenv("FAKENVML_FILE");
    struct stat now;
    if (!path || stat(path, &now) || !memcmp(&now.st_mtim, &file_time, sizeof file_time)) return;
    char text[4096] = "";
    FILE *file = fopen(path, "r");
    if (!file) return;
    file_time = now.st_mtim;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    pthread_mutex_lock(&lock);
    parse(text);
    pthread_mutex_unlock(&lock);
}

static long long get(long long otherwise, const char *format, ...)
{
    char key[56];
    va_list arguments;
    if (!setting_count) return otherwise;
    va_start(arguments, format);
    vsnprintf(key, sizeof key, format, arguments);
    va_end(arguments);
    for (int at = 0; at < setting_count; at++)
        if (!strcmp(settings[at].key, key)) return settings[at].value;
    return otherwise;
}

void fakenvml_set(const char *key, long long value)
{
    pthread_mutex_lock(&lock);
    put(key, value);
    pthread_mutex_unlock(&lock);
}

void fakenvml_clear(void) { setting_count = 0; event_count = 0; }
long long fakenvml_calls(int gpu) { return calls[gpu]; }
long long fakenvml_references(void) { return references; }

/* What a call must ask first: is the library up, is the GPU there, is a fault set? */
static int enter(const char *call, Device *device)
{
    if (!references) return UNINITIALIZED;
    calls[device->gpu]++;
    if (!setting_count) return OK;
    long long hang = get(0, "hang.%s", call);
    if (hang) nanosleep(&(struct timespec){hang / 1000, hang % 1000 * 1000000}, 0);
    int dead = get(0, "init");
    if (dead) return dead;
    return get(0, "lost.%d", device->gpu) ? LOST : get(0, "code.%s", call);
}

static void trace(const char *line)
{
    FILE *file = getenv("FAKENVML_TRACE") ? fopen(getenv("FAKENVML_TRACE"), "a") : NULL;
    if (!file) return;
    fputs(line, file);
    fclose(file);
}

#define ENTER(device) do { int code_ = enter(__func__, device); if (code_) return code_; } while (0)
#define WHOLE(device) do { ENTER(device); if ((device)->instance && !get(0, "value.instances")) return NOT_SUPPORTED; } while (0)
#define UINT(name, value) int name(Device *device, unsigned *out) { WHOLE(device); *out = (value); return OK; }

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    char text[4096];
    for (int gpu = 0; gpu < MOST_GPUS; gpu++)
        for (int instance = 0; instance <= MOST_INSTANCES; instance++) devices[gpu][instance] = (Device){gpu, instance};
    if (!references && getenv("FAKENVML")) {
        snprintf(text, sizeof text, "%s", getenv("FAKENVML"));
        parse(text);
    }
    reload();
    int code = get(OK, "init");
    if (!code) references++, trace("+\n");
    return code;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void)
{
    if (!references) return UNINITIALIZED;
    references--, trace("-\n");
    return OK;
}
const char *nvmlErrorString(int code) { return code == LOST ? "GPU is lost" : "Some Error"; }
int nvmlSystemGetDriverVersion(char *out, unsigned size) { snprintf(out, size, "580.126.09"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { reload(); *count = get(2, "gpus"); return references ? OK : UNINITIALIZED; }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **out)
{
    if (index >= get(2, "gpus")) return INVALID;
    *out = &devices[index][0];
    ENTER(*out);
    return OK;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, Device **out)
{
    unsigned domain, number;
    if (sscanf(bus, "%x:%x:", &domain, &number) != 2 || number < 1) return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2(number - 1, out);
}
int nvmlDeviceGetIndex(Device *device, unsigned *index) { *index = device->gpu; return OK; }
int nvmlDeviceGetName(Device *device, char *out, unsigned size)
{
    ENTER(device);
    snprintf(out, size, device->instance ? "NVIDIA H200 MIG 1g.18gb" : "NVIDIA H200");
    return OK;
}
int nvmlDeviceGetUUID(Device *device, char *out, unsigned size)
{
    snprintf(out, size, "%s-%08x-0000-0000-0000-%012x", device->instance ? "MIG" : "GPU", device->gpu, device->instance);
    return OK;
}
int nvmlDeviceGetSerial(Device *device, char *out, unsigned size) { snprintf(out, size, "16500%d", device->gpu); return OK; }
int nvmlDeviceGetVbiosVersion(Device *device, char *out, unsigned size) { (void)device; snprintf(out, size, "96.00.D9.00.02"); return OK; }
int nvmlDeviceGetPciInfo_v3(Device *device, Pci *out)
{
    ENTER(device);
    memset(out, 0, sizeof *out);
    out->bus = device->gpu + 1;
    snprintf(out->id, sizeof out->id, "00000000:%02X:00.0", device->gpu + 1);
    return OK;
}

/* Own calls */
int nvmlDeviceGetUtilizationRates(Device *device, unsigned *out)
{
    WHOLE(device);
    out[0] = get(70 + device->gpu, "value.gpu");
    out[1] = 33;
    return OK;
}
int nvmlDeviceGetEncoderUtilization(Device *device, unsigned *out, unsigned *period) { WHOLE(device); *out = 5; *period = 167000; return OK; }
int nvmlDeviceGetDecoderUtilization(Device *device, unsigned *out, unsigned *period) { WHOLE(device); *out = 6; *period = 167000; return OK; }
#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(Device *device, void *memory)
{
    ENTER(device);
    unsigned long long *out = (unsigned long long *)memory + 1; /* after the version */
    if (*(unsigned *)memory != 0x02000028) return 25;
    out[0] = 1000000000ull, out[1] = 50000000, out[2] = 700000000, out[3] = 250000000;
    return OK;
}
int nvmlDeviceGetTemperatureV(Device *device, unsigned *out)
{
    WHOLE(device);
    if (out[0] != 0x0100000C) return 25;
    out[2] = 40 + device->gpu;
    return OK;
}
#endif
int nvmlDeviceGetMemoryInfo(Device *device, unsigned long long *out)
{
    ENTER(device);
    out[0] = 1000000000ull, out[1] = 700000000, out[2] = 300000000;
    return OK;
}
int nvmlDeviceGetTemperature(Device *device, unsigned sensor, unsigned *out) { (void)sensor; WHOLE(device); *out = 40 + device->gpu; return OK; }
int nvmlDeviceGetClockInfo(Device *device, unsigned kind, unsigned *out) { WHOLE(device); *out = 1000 + kind; return OK; }
int nvmlDeviceGetMaxClockInfo(Device *device, unsigned kind, unsigned *out) { WHOLE(device); *out = 1980 + kind; return OK; }
UINT(nvmlDeviceGetPerformanceState, 0)
UINT(nvmlDeviceGetPowerUsage, 123456)
UINT(nvmlDeviceGetEnforcedPowerLimit, 700000)
UINT(nvmlDeviceGetPcieReplayCounter, 3)
UINT(nvmlDeviceGetCurrPcieLinkGeneration, 5)
UINT(nvmlDeviceGetCurrPcieLinkWidth, 16)
UINT(nvmlDeviceGetMaxPcieLinkGeneration, 5)
UINT(nvmlDeviceGetMaxPcieLinkWidth, 16)
int nvmlDeviceGetFanSpeed_v2(Device *device, unsigned fan, unsigned *out) { WHOLE(device); if (fan) return INVALID; *out = 30; return OK; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *out) { WHOLE(device); *out = get(1, "value.reasons"); return OK; }
int nvmlDeviceGetTemperatureThreshold(Device *device, unsigned kind, unsigned *out) { WHOLE(device); *out = 92 - kind; return kind < 4 ? OK : INVALID; }
int nvmlDeviceGetBAR1MemoryInfo(Device *device, unsigned long long *out) { WHOLE(device); out[0] = 1 << 28, out[1] = 1 << 27, out[2] = 1 << 27; return OK; }
int nvmlDeviceGetPcieThroughput(Device *device, unsigned way, unsigned *out)
{
    WHOLE(device);
    nanosleep(&(struct timespec){0, 20000000}, 0);
    *out = 1000 * (way + 1);
    return OK;
}
int nvmlDeviceGetMemoryErrorCounter(Device *device, int kind, int retention, int location, unsigned long long *out)
{
    WHOLE(device);
    *out = kind + retention;
    return location == 7 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *out)
{
    WHOLE(device);
    *out = get(5000000, "energy.%d", device->gpu) + 1000 * ++reads[device->gpu];
    return OK;
}

/* Fields: 4-byte unsigned unless listed. 11-16: cache and register ECC, not on this GPU. 82: with value.82 only. 201-221:
 * NVLink 5, which has no 138, 139 and the errors of older links. */
static void answer(Device *device, Field *field)
{
    unsigned id = field->id;
    field->timestamp = 1, field->latency = 0, field->type = 1;
    field->code = get(OK, "field.%u", id);
#ifdef OLD_DRIVER
    if (id >= 160) field->code = INVALID;
#endif
    int nvlink5 = get(0, "value.nvlink5"), older = (id >= 38 && id <= 59) || id == 138 || id == 139 || id == 160;
    if ((id == 82 && !get(0, "value.82")) || (id >= 7 && id <= 28) || (nvlink5 ? older : id >= 201 && id <= 221)) field->code = NOT_SUPPORTED;
    if (field->code) return;
    memset(&field->value, 0xAA, sizeof field->value); /* only the type's own bytes are defined */
    if (id == 83) field->type = 3, field->value.ull = get(5000000, "energy.%d", device->gpu) + 1000 * ++reads[device->gpu];
    else if (id == 138 || id == 139 || id == 197 || id == 198) field->type = 3, field->value.ull = get(id * 1000, "value.%u", id);
    else if (id >= 201 && id <= 221) field->type = 3, field->value.ull = 1000 * id + field->scope;
    else if ((id >= 74 && id <= 79) || (id >= 269 && id <= 271)) field->type = 3, field->value.ull = id * 1000000ull;
    else field->value.ui = get(id == 91 ? 18 : id == 186 ? 250000 : id == 190 ? 700000 : id < 6 || id == 94 ? id : id >= 142 && id <= 145 ? 0 :
                               id >= 29 && id <= 31 ? 0 : id == 230 ? 0 : id * 10, "value.%u", id);
}
int nvmlDeviceGetFieldValues(Device *device, int count, Field *fields)
{
    reload();
    WHOLE(device);
    for (int at = 0; at < count; at++) answer(device, &fields[at]);
    return OK;
}

/* Processes */
static int list(Device *device, unsigned *count, Process *out, int some)
{
    unsigned pid = some ? get(0, "process.%d", device->gpu) : 0, ghost = some ? get(0, "ghost.%d", device->gpu) : 0;
    unsigned found = !!pid + !!ghost, size = get(24, "value.process_size");
    if (*count < found) { *count = found; return TOO_SMALL; }
    Process all[] = {{pid, 123000000, ~0u, ~0u, 0}, {ghost, 99000000, ~0u, ~0u, 0}};
    if (get(0, "value.process_clear")) memset(out, 0, *count * size);
    *count = 0;
    for (int at = 0; at < 2; at++)
        if (all[at].pid) memcpy((char *)out + size * (*count)++, &all[at], size);
    return OK;
}
#define LISTS(version) \
int nvmlDeviceGetComputeRunningProcesses##version(Device *device, unsigned *count, Process *out) { ENTER(device); return list(device, count, out, 1); } \
int nvmlDeviceGetGraphicsRunningProcesses##version(Device *device, unsigned *count, Process *out) { ENTER(device); return list(device, count, out, 1); } \
int nvmlDeviceGetMPSComputeRunningProcesses##version(Device *device, unsigned *count, Process *out) { ENTER(device); return list(device, count, out, 0); }
LISTS(_v2)
#ifndef OLD_DRIVER
LISTS(_v3)
#endif
int nvmlDeviceGetProcessUtilization(Device *device, Sample *out, unsigned *count, unsigned long long since)
{
    WHOLE(device);
    unsigned pid = get(0, "process.%d", device->gpu), ghost = get(0, "ghost.%d", device->gpu), found = !!pid + 2 * !!ghost;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned long long time = now.tv_sec * 1000000ull + now.tv_nsec / 1000;
    if (!found || time <= since) return NOT_FOUND;
    if (!out || *count < found) { *count = found; return TOO_SMALL; }
    *count = 0;
    if (pid) out[(*count)++] = (Sample){pid, time, get(55, "value.sm"), 20, 5, 6};
    if (ghost) {
        out[(*count)++] = (Sample){ghost, time, 37100, 0, 0, 0};
        out[(*count)++] = (Sample){0, time, 50, 0, 0, 0};
    }
    return OK;
}

/* MIG */
int nvmlDeviceGetMigMode(Device *device, unsigned *now, unsigned *next)
{
    ENTER(device);
    *now = *next = get(-1, "mig.%d", device->gpu) >= 0;
    return device->instance ? INVALID : OK;
}
int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) { ENTER(device); *count = MOST_INSTANCES; return OK; }
int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **out)
{
    ENTER(device);
    if (index >= get(0, "mig.%d", device->gpu)) return NOT_FOUND;
    *out = &devices[device->gpu][1 + index];
    return OK;
}
int nvmlDeviceGetGpuInstanceId(Device *device, unsigned *out) { *out = device->instance + 6; return OK; }
int nvmlDeviceGetComputeInstanceId(Device *device, unsigned *out) { (void)device; *out = 0; return OK; }

/* Events */
int nvmlEventSetCreate(void **set) { *set = &events; return OK; }
int nvmlEventSetFree(void *set) { (void)set; return references ? OK : UNINITIALIZED; }
int nvmlDeviceRegisterEvents(Device *device, unsigned long long kinds, void *set) { (void)kinds, (void)set; ENTER(device); return OK; }
int nvmlEventSetWait_v2(void *set, Event *out, unsigned milliseconds)
{
    (void)set;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += milliseconds % 1000 * 1000000L, until.tv_sec += milliseconds / 1000 + until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    int code = OK;
    pthread_mutex_lock(&lock);
    while (!event_count && !code) code = pthread_cond_timedwait(&arrived, &lock, &until) ? TIMEOUT : OK;
    if (event_count) {
        code = OK, *out = events[0];
        memmove(events, events + 1, --event_count * sizeof *events);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

/* GPM */
int nvmlGpmQueryDeviceSupport(Device *device, unsigned *out) { ENTER(device); out[1] = 1; return OK; }
int nvmlGpmSampleAlloc(void **sample) { *sample = calloc(1, 8); return OK; }
int nvmlGpmSampleFree(void *sample) { free(sample); return OK; }
int nvmlGpmSampleGet(Device *device, long long *sample) { WHOLE(device); *sample = ++reads[device->gpu]; return OK; }
int nvmlGpmMigSampleGet(Device *device, unsigned gi, long long *sample) { (void)gi; ENTER(device); *sample = ++reads[device->gpu]; return OK; }
int nvmlGpmMetricsGet(Metrics *metrics)
{
    if (metrics->version != 1 || *(long long *)metrics->first >= *(long long *)metrics->second) return INVALID;
    for (unsigned at = 0; at < metrics->count; at++) {
        Metric *metric = &metrics->metrics[at];
        metric->code = metric->id == 11 ? NOT_SUPPORTED : OK;
        metric->value = metric->id;
    }
    return OK;
}
